"""Edit sessions on random models: the new object is given, state stays in the session, the model is unchanged, nulls are as large."""

from dataclasses import replace

import pytest
import torch

from ontogeny.editing import (
    EditPrompts,
    EditSession,
    EditSettings,
    FactEdit,
    ValueSettings,
    edit_effects,
    key_second_moments,
    norm_matched_edits,
)
from ontogeny.editing.facts import tokenize_fact
from ontogeny.editing.nulls import NULL_KINDS, edit_norm
from ontogeny.editing.session import EDIT_METHODS
from ontogeny.errors import BadInput
from ontogeny.models.hooks import read_hooks
from ontogeny.models.model import Model, output_weight
from ontogeny.sites import Site
from ontogeny.steering.bake import bake_edits
from ontogeny.steering.steer import steer
from ontogeny.worlds import entity_graph
from tests.helpers.tiny_models import outspoken, save_tiny

TEXTS = tuple(
    f"the {a} of {b} went to the {c} and back" for a in ("cat", "king") for b in "xyz" for c in ("hill", "sea")
)
FACT = FactEdit("the home of the cat is ", "Q")
OTHER = FactEdit("a king lives in ", "Z")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    made = {f: outspoken(save_tiny(f, folder / f)) for f in ("gpt_neox", "gpt2", "llama", "opt", "olmo2")}
    for model in made.values():  # so that some stream gives a token most of the probability
        out = model.network.get_output_embeddings()
        out.weight = torch.nn.Parameter(4 * out.weight.detach(), requires_grad=False)
    return made


def next_token(model: Model, prompt: str, edits=()) -> torch.Tensor:
    ids = torch.tensor([model.tokenizer(prompt).input_ids])
    with torch.no_grad(), steer(model, list(edits)):
        return model.network(ids).logits[0, -1].softmax(-1)


@pytest.mark.parametrize("method", EDIT_METHODS)
@pytest.mark.parametrize("family", ["gpt_neox", "gpt2", "llama", "opt", "olmo2"])
def test_each_method_makes_the_model_give_the_new_object(models: dict[str, Model], family: str, method: str) -> None:
    model = models[family]
    if family == "olmo2" and method in ("memit", "alphaedit"):
        with pytest.raises(BadInput, match="use rome or pmet"):
            EditSession(model, TEXTS, EditSettings(method))
        return
    weights = {name: value.clone() for name, value in model.network.state_dict().items()}
    session = EditSession(model, TEXTS, EditSettings(method, layers=(2,)), prefixes=TEXTS[:2])
    (first,) = model.tokenizer(FACT.answer, add_special_tokens=False).input_ids[:1]
    applied = session.edit(FACT)
    before, after = (float(next_token(model, FACT.prompt, edits)[first]) for edits in ((), session.edits))
    # PMET leaves out the share of attention; a norm after the MLP bounds what an edit can do.
    assert after > (50 * before if method == "pmet" or family == "olmo2" else 0.3)
    assert before < 0.005
    assert applied.norm > 0
    assert all(torch.equal(value, weights[name]) for name, value in model.network.state_dict().items())
    baked = bake_edits(model, session.edits)
    assert torch.allclose(next_token(baked, FACT.prompt), next_token(model, FACT.prompt, session.edits), atol=1e-5)


def test_rome_maps_the_key_to_its_value(models: dict[str, Model]) -> None:
    """The MLP's output at the edited token moves by exactly the shift that gradient descent gave."""
    model = models["llama"]
    session = EditSession(model, TEXTS, EditSettings("rome", layers=(1,)))
    applied = session.edit(FactEdit(FACT.prompt, "Q", subject="cat"))
    outputs = []
    for edits in ((), session.edits):
        with steer(model, list(edits)), read_hooks(model, [("mlp", 1)], lambda *got: outputs.append(got[2][0].clone())):
            next_token(model, FACT.prompt)
    moved = (outputs[1] - outputs[0]).double()
    at = len(model.tokenizer("the home of the cat").input_ids) - 1
    assert torch.allclose(moved[at], applied.values[0].shifts[0], atol=1e-4 * float(moved[at].norm()))


def test_independent_and_sequential_edits_are_told_apart(models: dict[str, Model]) -> None:
    model = models["gpt2"]
    moments = key_second_moments(model, [torch.tensor(model.tokenizer(text).input_ids) for text in TEXTS], [1, 2])
    alone = EditSession(model, settings=EditSettings("alphaedit", layers=(1, 2)), moments=moments)
    alone.edit(OTHER)
    wanted = alone.edits
    session = EditSession(model, settings=EditSettings("alphaedit", layers=(1, 2)), moments=moments)
    session.edit(FACT)
    second = session.edit(OTHER)
    assert not torch.equal(second.edits[0].what.value, wanted[0].what.value), "the second edit knows of the first"
    with pytest.raises(BadInput):
        session.edit(FactEdit("nothing of the", " Q", subject="cat"))
    assert len(session.applied) == 2
    assert len(session.edits) == 4
    session.reset()
    session.edit(OTHER)
    for got, want in zip(session.edits, wanted, strict=True):
        assert got.site == want.site
        assert torch.equal(got.what.key, want.what.key), "nothing of the first edit is left after a reset"
        assert torch.equal(got.what.value, want.what.value)
    together = EditSession(model, settings=EditSettings("alphaedit", layers=(1, 2)), moments=moments)
    applied = together.edit(FACT, OTHER)
    assert len(applied.edits) == 4
    assert "null space of layer 1: 90 of 128 directions" in applied.notes[0]


@pytest.mark.parametrize("kind", NULL_KINDS)
def test_nulls_change_the_same_weights_by_as_much(models: dict[str, Model], kind) -> None:
    model = models["gpt2"]
    session = EditSession(model, TEXTS, EditSettings("memit", layers=(1, 2)))
    session.edit(FACT, OTHER)
    nulls = norm_matched_edits(session.edits, kind, seed=3)
    assert [edit.site for edit in nulls] == [edit.site for edit in session.edits]
    assert edit_norm(nulls) == pytest.approx(edit_norm(session.edits))
    for layer in (1, 2):
        weight = output_weight(model, Site("mlp", layer))
        dense = [
            sum(e.what(weight) - weight for e in edits if e.site.layer == layer) for edits in (session.edits, nulls)
        ]
        assert float(dense[0].norm()) == pytest.approx(float(dense[1].norm()), rel=1e-4)
        assert not torch.allclose(dense[0], dense[1])
    assert not torch.equal(nulls[0].what.value, norm_matched_edits(session.edits, kind, seed=4)[0].what.value)


def test_effects_have_the_unedited_model_and_both_nulls_beside_them(models: dict[str, Model]) -> None:
    model = models["llama"]
    session = EditSession(model, TEXTS, EditSettings("rome", layers=(2,)))
    session.edit(FACT)
    prompts = EditPrompts(("the cat lives in",), ("the sea is", "a hill of", "back to"), TEXTS[:2])
    rows = edit_effects(model, FACT, session.edits, prompts, controls=2)
    table = {(r.metric, r.coords["prompts"], r.control): r for r in rows}
    controls = (None, "unedited", *NULL_KINDS)
    assert len(rows) == len(table) == 11 * len(controls)
    edited, plain, null, _ = (table["edit_probability", "fact", c] for c in controls)
    assert edited.value > 0.3 > 10 * max(plain.value, null.high)
    assert table["edit_success", "fact", None].value == 1
    assert table["edit_success", "fact", "unedited"].value == 0
    assert table["edit_kept", "neighbour", "unedited"].value == 1
    for metric in ("edit_distortion", "edit_rearrangement", "edit_procrustes"):
        assert table[metric, "thing", "unedited"].value == pytest.approx(0, abs=1e-6)
        assert table[metric, "thing", None].value > 0
        assert table[metric, "thing", "random_rank_one"].low < table[metric, "thing", "random_rank_one"].high
    given = edit_effects(bake_edits(model, session.edits), FACT, [], EditPrompts())
    assert given[1].value == 1, "an object that the model gives already is above all others"
    bare = edit_effects(model, FACT, session.edits, EditPrompts(), controls=0)
    assert {r.note for r in bare if r.n == 0} == {
        "no paraphrase was given", "no neighbour was given", "no text was given", "distances need 3 neighbours or texts, got 0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        (FactEdit("e00 I_C", "1"), "must not merge"),
        (FactEdit("e00 I_C1", " e99"), "new object must be of words that the tokenizer knows"),
        (FactEdit("e00 I_C9", " e01"), "edited token must be one that the tokenizer knows"),
    ],
)
def test_tokens_that_do_not_align_or_are_unknown_are_refused(
    models: dict[str, Model], fact: FactEdit, words: str
) -> None:
    """With a token before the text, as most tokenizers of words have it."""
    world = entity_graph.make()
    model = replace(models["gpt2"], tokenizer=entity_graph.tokenizer(world))
    assert tokenize_fact(model, FactEdit("e00 I_C1", " e01"), ["e02 I_C1"]).starts == (3, 5)
    with pytest.raises(BadInput, match=words):
        tokenize_fact(model, fact)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda m: EditSession(m, TEXTS, EditSettings("rome", layers=(7,))),
            "`layer` must be 1 to 2, the blocks of this model, got 7",
        ),
        (lambda m: EditSession(m, (), EditSettings("rome")), "`texts` must be given"),
        (lambda m: EditSettings("rom"), "did you mean 'rome'|rome"),
        (lambda m: EditSettings("rome", layers=(1, 2)), "`layers` of rome must be one"),
        (lambda m: EditSettings("memit", preservation=0.0), "`preservation` and `damping` above 0"),
        (lambda m: ValueSettings(enough=1.0), "`enough` between 0 and 1"),
        (lambda m: EditSession(m, TEXTS).edit(), "`facts` must be at least one"),
        (lambda m: EditSession(m, TEXTS).edit(FactEdit("the cat is", "")), "must have tokens"),
        (lambda m: EditSession(m, TEXTS).edit(FactEdit(" ", " Q")), "`prompt` must be the text before the object"),
        (
            lambda m: EditSession(m, TEXTS).edit(FactEdit("the cat is", " Q", "dog")),
            "`subject` must be a part of the prompt",
        ),
        (lambda m: EditSession(m, TEXTS).edit(FactEdit("the cat is", " Q", " ")), "`subject` must have a word"),
        (lambda m: EditSession(m, TEXTS).edit(FactEdit("the cat" * 30, " Q")), "at most 128 tokens"),
        (
            lambda m: EditSession(m, TEXTS, EditSettings(layers=(2,))).edit(FactEdit("the cat is", " Q", "cat")),
            "last block acts on the last token",
        ),
        (
            lambda m: EditSession(m, TEXTS, EditSettings(layers=(2,))).edit(FactEdit("the cat is", " Q")),
            "object ' Q' of 2 tokens",
        ),
        (lambda m: EditSession(m, ["a"], EditSettings("memit", ridge=0.0)).edit(FACT), "second moment .* is singular"),
    ],
)
def test_bad_input_is_one_line(models: dict[str, Model], make, words: str) -> None:
    with pytest.raises(BadInput, match=words) as error:
        make(models["gpt_neox"])
    assert "\n" not in str(error.value)
