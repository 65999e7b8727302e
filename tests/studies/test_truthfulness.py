"""Truthfulness study on models with a planted direction: it is found, transfers between stages, and steers verdicts."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ontogeny.data.concept import Concept
from ontogeny.data.statement_folds import statement_folds
from ontogeny.data.verdict_question import VERDICT_QUESTIONS, VerdictQuestion, verdict_question_for
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import StudyInputs
from ontogeny.models.model import Model, load_model
from ontogeny.records import Record
from ontogeny.steering.verdicts import run_verdict_prompts
from ontogeny.studies import truthfulness as study
from ontogeny.studies.truthfulness import TruthfulnessSettings
from tests.helpers import planted_lineages
from tests.helpers.tiny_models import byte_tokenizer, save_tiny

SPOKEN = VerdictQuestion("", planted_lineages.YES, planted_lineages.NO, 0)
SETTINGS = TruthfulnessSettings(question=SPOKEN, nulls=128, resamples=200)


def _planted(folder: Path, push: float, answers: float) -> Model:
    planted_lineages.planted(push, answers=answers).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return load_model(folder)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    root = tmp_path_factory.mktemp("stages")
    made = {"plain": (0.0, 0.0), "base": (8.0, 2.0), "post": (6.0, 2.0)}
    return {name: _planted(root / name, push, answers) for name, (push, answers) in made.items()}


@pytest.fixture(scope="module")
def coins(tmp_path_factory: pytest.TempPathFactory) -> Concept:
    return Concept.from_file(
        planted_lineages.write(tmp_path_factory.mktemp("coins") / "coin.csv", planted_lineages.rows())
    )


@pytest.fixture(scope="module")
def rows(stages: dict[str, Model], coins: Concept) -> list[Record]:
    return list(study.run(stages, StudyInputs((coins,)), SETTINGS))


def _one(rows: list[Record], metric: str, stage: str, other: str | None = None, **told: str) -> Record:
    def fits(row: Record) -> bool:
        return (
            (row.metric, row.stage, row.coords.get("other_stage")) == (metric, stage, other)
            and row.control is None
            and all(row.coords.get(key) == value for key, value in told.items())
        )

    [found] = [row for row in rows if fits(row)]
    return found


def test_planted_direction_agrees_between_stages(rows: list[Record]) -> None:
    same = _one(rows, "stage_cosine", "base", "post")
    assert same.value > 0.9
    assert same.low <= same.value <= same.high
    nothing = _one(rows, "stage_cosine", "plain", "post")
    assert nothing.n == 0
    assert "no longer than its noise" in (nothing.note or "")
    [halves] = [r.value for r in rows if r.control == "split_half" and r.stage == "base"]
    assert halves > 0.9


def test_probe_transfers_to_the_stage_with_the_direction(rows: list[Record]) -> None:
    for source, target in (("base", "post"), ("post", "base")):
        assert _one(rows, "stage_auroc", target, source).low > 0.8
        assert _one(rows, "stage_accuracy", target, source).low > 0.8
    nothing = _one(rows, "stage_auroc", "plain", "base")
    assert nothing.low < 0.5 < nothing.high


def test_steering_changes_verdicts_and_random_directions_do_not(rows: list[Record]) -> None:
    for source, target in (("base", "base"), ("base", "post"), ("post", "post")):
        pushed = _one(rows, "push_effect", target, source, length="source")
        assert pushed.low > 0.05
        [null] = [
            r
            for r in rows
            if r.control and r.metric == "push_effect" and (r.stage, r.coords["other_stage"]) == (target, source)
        ]
        assert null.low <= 0 <= null.high
        assert null.high - null.low <= pushed.value / 10
        assert _one(rows, "nie", target, source, way="mean", form="full").low > 0.01


def test_verdict_gaps_have_the_planted_signs(rows: list[Record]) -> None:
    assert _one(rows, "verdict_gap", "base", statements="true").low > 0
    assert _one(rows, "verdict_gap", "base", statements="false").high < 0


def test_zero_push_changes_nothing_and_cached_prompt_equals_full_pass(stages: dict[str, Model]) -> None:
    model, texts = stages["base"], ["so they say a", "we have seen it all b", "one may hear c"]
    asked = run_verdict_prompts(model, SPOKEN, (), texts)
    plain = asked.differences()
    assert torch.equal(plain, asked.differences(torch.zeros(3, model.d), [1, 2]))
    for text, value in zip(texts, plain.tolist(), strict=True):
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            chances = model.network(input_ids=ids).logits[0, -1].softmax(-1)
        true, false = (model.tokenizer(word)["input_ids"][0] for word in (planted_lineages.YES, planted_lineages.NO))
        assert float(chances[true] - chances[false]) == pytest.approx(value, abs=1e-5)


def test_push_equals_hook_on_the_full_prompt(stages: dict[str, Model]) -> None:
    model, text = stages["base"], "so they say a"
    push = torch.randn(1, model.d, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])

    def edit(_: object, __: object, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, -2:] += push
        return output

    handle = model.network.gpt_neox.layers[0].register_forward_hook(edit)
    with torch.no_grad():
        chances = model.network(input_ids=ids).logits[0, -1].softmax(-1)
    handle.remove()
    true, false = (model.tokenizer(word)["input_ids"][0] for word in (planted_lineages.YES, planted_lineages.NO))
    value = float(run_verdict_prompts(model, SPOKEN, (), [text]).differences(push, [1]))
    assert float(chances[true] - chances[false]) == pytest.approx(value, abs=1e-5)


def test_stages_of_other_widths_are_measured_alone(stages: dict[str, Model], coins: Concept, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(save_tiny("gpt_neox", tmp_path / "wide"))
    config.hidden_size = 64
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "wide")
    both = {"base": stages["base"], "wide": load_model(tmp_path / "wide")}
    found = list(study.run(both, StudyInputs((coins,)), replace(SETTINGS, nulls=2)))
    apart = _one(found, "stage_auroc", "wide", "base")
    assert apart.n == 0
    assert "64 dimensions and 32" in (apart.note or "")
    assert _one(found, "stage_auroc", "base", "base").n > 0


def test_several_sets_are_held_out_in_turn(coins: Concept) -> None:
    other = replace(coins, name="other")
    made = list(statement_folds([coins, other], shots=4, resamples=100, seed=0))
    assert [(f.concept.name, [i for i, _ in f.learned]) for f in made] == [("coin", [1]), ("other", [0])]
    shown = {shot.group for shot in made[0].shots}
    assert len(shown) == 4
    assert sum(bool(shot.target) for shot in made[0].shots) == 2
    assert not shown & {e.group for e in made[0].statements}


def test_default_question_needs_distinct_verdict_tokens() -> None:
    tokenizer = byte_tokenizer()
    assert verdict_question_for(tokenizer) == VERDICT_QUESTIONS[0]
    verdicts = VERDICT_QUESTIONS[0].verdicts(tokenizer)
    assert verdicts is not None
    assert tokenizer.decode([*verdicts.shared, verdicts.true]) == " T"
    assert VerdictQuestion("", " yes", " yes", 0).verdicts(tokenizer) is None


def test_rejects_unknown_layer_wrong_kind_and_short_statement(stages: dict[str, Model], coins: Concept) -> None:
    with pytest.raises(BadInput, match="block 9"):
        list(study.run(stages, StudyInputs((coins,)), replace(SETTINGS, layer=9)))
    with pytest.raises(BadInput, match="sets of true and false"):
        list(study.run(stages, StudyInputs((replace(coins, kind="number"),)), SETTINGS))
    with pytest.raises(BadInput, match="too short"):
        run_verdict_prompts(stages["base"], SPOKEN, (), ["a"])
