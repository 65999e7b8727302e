"""Texts and questions longer than the context: rejected, or truncated from the left with a count; answers never."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ontogeny.activations.capture import capture_workload
from ontogeny.activations.workload import build_workload
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer
from ontogeny.errors import BadInput
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models.model import load_model
from tests.helpers.planted_lineages import rows, save_run, write
from tests.helpers.tiny_models import byte_tokenizer

QUICK = TraceSettings(
    sites="resid", fits=("logistic",), resamples=100, permutations=100, truncate=True, untrained=False
)
PROMPT = "abcdefghijklmnopqrstuvwxyz: " * 2


def asking(concept: Concept, prompts: list[str], right: str = " yes", wrong: str = " certainly not") -> Concept:
    answers = [Answer(prompt, right, wrong, e.group) for prompt, e in zip(prompts, concept.examples, strict=False)]
    return replace(concept, answers=tuple(answers))


@pytest.fixture
def concept(tmp_path: Path) -> Concept:
    return Concept.from_file(write(tmp_path / "planted.csv", rows(characters=30)))


@pytest.mark.parametrize("bos", [False, True])
def test_long_prompt_is_truncated_equally_for_both_answers(concept: Concept, bos: bool) -> None:
    tokenizer = byte_tokenizer(bos=bos)
    asked = asking(concept, ["short:", PROMPT])
    with pytest.raises(
        BadInput, match=r"a question of planted has \d+ tokens, more than the context of 40.*`truncate`"
    ):
        build_workload([asked], tokenizer, 40)
    work, found = build_workload([asked], tokenizer, 40, truncate=True)
    shown = []
    for which in ("right", "wrong"):
        scored = work.scored[int(getattr(found["planted"], which)[1])]
        ids = work.sequences[scored.sequence]
        assert len(ids) <= 40
        assert (ids[0] == 0) == bos
        shown.append((tokenizer.decode(ids[bos : scored.start]), tokenizer.decode(ids[scored.start :])))
    (before, right), (same, wrong) = shown
    assert before == same
    assert before
    assert PROMPT.endswith(before)
    assert (right, wrong) == (" yes", " certainly not")
    assert found["planted"].truncated == {"texts": 0, "prompts": 1}
    # The one that fits is asked as it stands.
    scored = work.scored[int(found["planted"].right[0])]
    assert tokenizer.decode(work.sequences[scored.sequence][bos:]) == "short: yes"


def test_rejects_answer_that_fills_the_context(concept: Concept) -> None:
    with pytest.raises(BadInput, match="an answer of planted alone fills the context of 40 tokens"):
        build_workload([asking(concept, [PROMPT], wrong=" not" * 12)], byte_tokenizer(), 40, truncate=True)


def test_score_is_that_of_the_truncated_question(concept: Concept, tmp_path: Path) -> None:
    save_run(tmp_path / "run", {1: 8.0}, context=40)
    model = load_model(tmp_path / "run" / "checkpoint-1", tokenizer=tmp_path / "run")
    work, found = build_workload([asking(concept, [PROMPT])], model.tokenizer, model.context, truncate=True)
    [by_us] = capture_workload(model, work, ()).answers[found["planted"].wrong].tolist()
    ids = torch.tensor([model.tokenizer(PROMPT + " certainly not")["input_ids"][-40:]])
    with torch.no_grad():
        likely = model.network(ids).logits[0].log_softmax(-1)
    by_hand = sum(float(likely[at - 1, ids[0, at]]) for at in range(40 - len(" certainly not"), 40))
    assert by_us == pytest.approx(by_hand, rel=1e-4)


def test_run_records_the_number_of_truncated_texts(
    concept: Concept, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from ontogeny.cli.trace import print_trace_summary

    save_run(tmp_path / "run", {1: 8.0}, context=40)
    long = replace(concept.examples[0], text=PROMPT + concept.examples[0].text)
    asked = asking(replace(concept, examples=(long, *concept.examples[1:])), ["short:", PROMPT, PROMPT])
    run = trace(Lineage.open(tmp_path / "run"), [asked], tmp_path / "out", QUICK)
    told = run.records("metric = 'shortened'")
    assert {(dict(c)["what"], v, n) for c, v, n in zip(told.coords, told.value, told.n, strict=True)} == {
        ("texts", 1, len(asked.examples)),
        ("prompts", 2, 3),
    }
    print_trace_summary(run.folder, as_json=False)
    assert "planted: the beginning of 2 of 3 prompts was left out" in " ".join(capsys.readouterr().out.split())
