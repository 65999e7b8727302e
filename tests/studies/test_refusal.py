"""Refusal study: a planted direction is found and transfers, a rotated one does not transfer, and a random one has no effect."""

import math
from dataclasses import replace

import pytest
import torch

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import StudyInputs
from ontogeny.models.model import load_model
from ontogeny.steering.instruction_split import split_groups
from ontogeny.steering.refusal_effects import refusal_edits
from ontogeny.steering.refusal_prompts import PromptTemplate, RefusalPrompts
from ontogeny.steering.refusal_score import refusal_log_odds
from ontogeny.studies import refusal as study
from ontogeny.studies.refusal.settings import RefusalSettings
from tests.helpers.tiny_models import refusing, save_tiny

PHRASES = ("No", "I can't")
FAST = RefusalSettings(
    template="Q {} A:", phrases=PHRASES, positions=2, depth=0.5, tokens=4, nulls=4, phrase_nulls=1, samples=200
)
UNFILTERED = replace(FAST, max_kl=math.inf, min_induced=-math.inf)
"""For random models, which never refuse."""
HARMFUL = [f"zap number {i:02d} {word}" for i, word in enumerate(("ab", "cd", "ef", "gh", "ij", "kl", "mn", "op") * 3)]
HARMLESS = [
    f"cake number {i:02d} {word}" for i, word in enumerate(("ab", "cd", "ef", "gh", "ij", "kl", "mn", "op") * 3)
]


def examples(texts, harmful=True):
    return tuple(Example(text, harmful, text) for text in texts)


def requests(harmful=HARMFUL, harmless=HARMLESS):
    return StudyInputs(requests=Concept("requests", examples(harmful) + examples(harmless, harmful=False)))


def rows(found, metric, **wanted):
    def fits(row):
        seen = {**row.coords, "stage": row.stage, "control": row.control}
        return row.metric == metric and all(seen.get(k) == v for k, v in wanted.items())

    return [row for row in found if fits(row)]


def one(found, metric, **wanted):
    (row,) = rows(found, metric, **wanted)
    return row


@pytest.fixture(scope="module")
def stages(tiny_neox):
    """Two stages that refuse along one axis, and one that refuses along another."""
    return {name: refusing(tiny_neox, axis) for name, axis in (("base", 2), ("sft", 2), ("dpo", 8))}


@pytest.fixture(scope="module")
def tiny_neox(tmp_path_factory):
    return save_tiny("gpt_neox", tmp_path_factory.mktemp("neox"))


@pytest.fixture(scope="module")
def found(stages):
    before = {name: {k: v.clone() for k, v in m.network.state_dict().items()} for name, m in stages.items()}
    made = list(study.run(stages, requests(), FAST))
    for name, model in stages.items():
        assert all(torch.equal(v, before[name][k]) for k, v in model.network.state_dict().items())
    return made


def test_cosine_is_high_only_between_stages_that_share_the_direction(found):
    same = one(found, "refusal_cosine", stage="sft", other_stage="base", held="shared", control=None)
    other = one(found, "refusal_cosine", stage="dpo", other_stage="base", held="shared", control=None)
    assert same.value > 0.9
    assert same.low < same.value < same.high or same.value > 0.999
    assert other.value < 0.7
    assert one(found, "refusal_cosine", stage="base", held="shared", control="split_half").value > 0.9
    reach = one(found, "refusal_cosine", held="shared", control="random_direction")
    assert reach.low < 0 < reach.high < same.value


def test_own_vector_changes_refusal_and_random_ones_do_not(found):
    for stage in ("base", "sft", "dpo"):
        for act, sign in (("ablation", -1), ("addition", 1)):
            own = one(found, "refusal_effect", stage=stage, other_stage=stage, act=act, of="log_odds", control=None)
            null = one(found, "refusal_effect", stage=stage, act=act, of="log_odds", control="random_direction")
            assert own.value * sign > 0.5
            assert own.low * sign > 0
            assert null.high - null.low < 0.1 * abs(own.value)
            assert abs(null.value) < 0.05 * abs(own.value)


def test_forward_transfer_is_one_along_the_same_axis_and_lost_along_another(found):
    def share(stage, act):
        return one(
            found, "refusal_transfer", stage=stage, other_stage="base", act=act, of="log_odds", form="above_random"
        )

    for act in ("ablation", "addition"):
        kept, lost = share("sft", act), share("dpo", act)
        assert kept.coords["way"] == "forward"
        assert kept.value == pytest.approx(1, abs=0.2)
        assert lost.value < 0.5
        assert lost.low <= lost.value <= lost.high
    back = rows(found, "refusal_transfer", stage="base", other_stage="dpo", form="ratio", of="log_odds")
    assert {row.coords["way"] for row in back} == {"backward"}


def test_ratio_to_an_absent_effect_is_missing_with_its_reason(tiny_neox):
    plain = {"base": load_model(tiny_neox), "post": load_model(tiny_neox)}
    found = list(study.run(plain, requests(HARMLESS, [t.replace("cake", "cakE") for t in HARMLESS]), UNFILTERED))
    phrases = rows(found, "refusal_transfer", of="phrases", form="ratio")
    assert phrases
    assert all(math.isnan(row.value) and row.n == 0 and "no share of it" in row.note for row in phrases)
    odds = rows(found, "refusal_transfer", of="log_odds", form="ratio")
    assert all(math.isnan(row.value) for row in odds)
    assert any("no more" in row.note for row in odds)
    same = one(found, "refusal_cosine", stage="post", other_stage="base", held="shared", control=None)
    assert same.value == pytest.approx(1)


def test_stage_that_does_not_refuse_has_no_direction(stages, tiny_neox):
    mixed = {"base": load_model(tiny_neox), "sft": stages["sft"]}
    found = list(study.run(mixed, requests(), replace(FAST, nulls=2, tokens=0)))
    for held in ("shared", "own"):
        layer = one(found, "refusal_layer", stage="base", held=held)
        assert math.isnan(layer.value)
        assert layer.n == 0
        assert "no refusal direction: added to harmless instructions" in layer.note
        assert one(found, "refusal_layer", stage="sft", held=held).value >= 1
        cosine = one(found, "refusal_cosine", stage="sft", other_stage="base", held=held, control=None)
        assert math.isnan(cosine.value)
        assert cosine.note.startswith("base has no refusal direction")
    effects = rows(found, "refusal_effect", other_stage="base", control=None)
    assert len(effects) == 4
    assert all(math.isnan(row.value) and row.note.startswith("base has no") for row in effects)
    assert rows(found, "refusal_effect", stage="sft", other_stage="sft", act="addition", control=None)[0].value > 0.5


def test_kl_filter_rejects_a_vector_that_breaks_harmless_answers(stages):
    """The filter compares the next token before and after ablation, on harmless instructions."""
    parts = split_groups(requests().requests, limits=FAST.limits, seed=0)
    survey = study._survey_stage(stages["sft"], parts, PromptTemplate("Q {} A:"), FAST)
    assert survey.passes.any()
    at = survey.at(survey.best)
    asked = RefusalPrompts.of(stages["sft"], PromptTemplate("Q {} A:"), parts[1].harmless, PHRASES)
    before = asked.log_probs()
    edits = refusal_edits(stages["sft"], "ablation", survey.activations.difference(survey.best), layer=1, dose=1.0)
    after = asked.log_probs(edits)
    expected = torch.nn.functional.kl_div(after, before, reduction="batchmean", log_target=True)
    assert float(survey.kl[at]) == pytest.approx(float(expected), abs=1e-9)
    strict = replace(survey, limits=(float(survey.kl.min()), 0.0))
    assert not strict.passes.any()
    assert "changes the next token by" in strict.why_none


def test_batched_log_odds_equal_single_prompts(stages):
    model = stages["sft"]
    framing = PromptTemplate("Q {} A:")
    texts = [HARMFUL[0], "z", HARMLESS[3] + " with more words"]
    asked = RefusalPrompts.of(model, framing, examples(texts), PHRASES)
    asked_as = [f"Q {text} A:" for text in texts]
    alone = refusal_log_odds(model, asked_as, phrases=PHRASES)
    assert torch.allclose(asked.log_odds(batch=2), alone, atol=1e-4)
    edits = refusal_edits(model, "addition", torch.randn(model.d), layer=1, dose=3.0)
    steered = refusal_log_odds(model, asked_as, edits, phrases=PHRASES)
    assert torch.allclose(asked.log_odds(edits), steered, atol=1e-4)
    assert not torch.allclose(steered, alone, atol=1e-2)


@pytest.mark.parametrize("family", ["gpt2", "llama", "olmo2", "falcon"])
def test_every_family_gives_all_rows(tiny, family):
    pair = {"base": load_model(tiny(family)), "post": load_model(tiny(family, seed=1))}
    few = replace(UNFILTERED, nulls=1, phrase_nulls=0, tokens=0)
    found = list(study.run(pair, requests(), few))
    assert len(rows(found, "refusal_effect", control=None)) == 2 * 2 * 2
    assert all(not math.isnan(row.value) for row in rows(found, "refusal_effect"))
    random = one(found, "refusal_cosine", stage="post", other_stage="base", held="shared", control=None)
    assert abs(random.value) < 0.8


def test_rows_name_the_read_tokens_and_note_differences(found, tiny, tmp_path):
    where = one(found, "refusal_layer", stage="base", held="shared")
    assert (where.coords["window"], where.coords["end"], where.note) == ("2", "A :", None)
    later = load_model(tiny("gpt_neox"))
    later.tokenizer.add_tokens(["A:"])
    stages = {"base": load_model(tiny("gpt_neox")), "post": later}
    made = list(study.run(stages, requests(), replace(UNFILTERED, positions=1, nulls=1, tokens=0)))
    assert "different tokens: :, A:" in one(made, "refusal_layer", stage="post", held="shared").note
    with pytest.raises(BadInput, match="masked language model"):
        list(study.run({"base": load_model(tiny("bert")), "post": later}, requests(), FAST))


def test_many_stages_are_generated_with_fewer_vectors(tiny):
    many = {name: load_model(tiny("gpt_neox")) for name in "abcd"}
    found = list(study.run(many, requests(), replace(UNFILTERED, crossed=3, nulls=1, phrase_nulls=0)))
    assert len(rows(found, "refusal_effect", of="log_odds", control=None)) == 4 * 4 * 2
    said = rows(found, "refusal_effect", of="phrases", control=None, stage="b", act="addition")
    assert [row.coords["other_stage"] for row in said] == ["a", "b", "d"]


def test_stages_of_other_widths_are_not_compared(tiny, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    from tests.helpers.tiny_models import byte_tokenizer

    config = AutoConfig.from_pretrained(tiny("gpt_neox"))
    config.hidden_size, config.intermediate_size = 48, 96
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    pair = {"base": load_model(tiny("gpt_neox")), "post": load_model(tmp_path)}
    found = list(study.run(pair, requests(), replace(UNFILTERED, nulls=1, tokens=0)))
    lost = one(found, "refusal_cosine", stage="post", other_stage="base", held="shared", control=None)
    assert math.isnan(lost.value)
    assert "48" in lost.note
    assert "32 dimensions" in rows(found, "refusal_effect", stage="post", other_stage="base", control=None)[0].note


def test_templates_and_chat_templates_frame_instructions(stages):
    model = stages["base"]
    ids = PromptTemplate("Q {} A:").tokens(model, ["b {x}"])[0]
    assert model.tokenizer.decode(ids) == "Q b {x} A:"
    model.tokenizer.chat_template = "{% for m in messages %}<s>[{{ m.content }}]{% endfor %}{{ '=' }}"
    try:
        chat = PromptTemplate(True)
        (chatted,), (first,) = chat.with_first_tokens(model, ["b"], ["No"])
        assert model.tokenizer.decode(chatted) == "<s>[b]="
        assert model.tokenizer.convert_ids_to_tokens(first) == ["N"]
    finally:
        model.tokenizer.chat_template = None
    with pytest.raises(BadInput, match="where the words go"):
        RefusalSettings(template="User:")
    with pytest.raises(BadInput, match="at least two stages"):
        list(study.run({"base": model}, requests(), FAST))
