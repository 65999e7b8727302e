"""Steering in real forward passes: no edit is no trace, and what is edited does not depend on batch, padding, cache or beams."""

from dataclasses import replace

import pytest
import torch

from ontogeny.direction import Direction
from ontogeny.errors import BadInput
from ontogeny.interventions import Ablate, Add, Clamp, Patch, RankOne, Reweight, Zero
from ontogeny.models.hooks import read_hooks
from ontogeny.models.model import load_model, tokenizer_fingerprint
from ontogeny.sites import Site
from ontogeny.steering.bake import bake_edits, save_baked
from ontogeny.steering.decoding import can_decode
from ontogeny.steering.generate import DecodingConfig, generate
from ontogeny.steering.log_likelihood import (
    log_likelihoods,
    mean_log_likelihoods,
    token_log_likelihoods,
    tokenize_answers,
)
from ontogeny.steering.steer import ablate_everywhere, check_direction, control_edits, edits_for_prompts, steer
from tests.helpers.tiny_models import SHAPES, outspoken

FAMILIES = ("gpt2", "gpt_neox", "llama")
PROMPTS = ["Once upon a time", "A", "The ball, the dog and the big red"]
IDS = torch.tensor([[5, 17, 40, 9, 201, 33], [8, 8, 120, 64, 77, 250]])
CACHED = ("ablate", "zero", "chain", "weight")
family = pytest.mark.parametrize("family", FAMILIES)


def vector(d, seed=7):
    return 2 * torch.randn(d, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session")
def small(tiny):
    made = {}

    def model(name):
        return made.setdefault(name, load_model(tiny(name)))

    return model


def every_edit(model, where="all"):
    d = model.d
    return {
        "add": [("resid.1", Add(vector(d)), where)],
        "twice": [("resid.1", Add(vector(d)), where), ("resid.2", Add(vector(d, 8)), where)],
        "ablate": [(f"resid.{layer}", Ablate.of(vector(d)), where) for layer in range(3)],
        "clamp": [("resid.1", Clamp.to_value(vector(d), 4.0), where)],
        "zero": [("head.1.2", Zero(), where), ("mlp.2", Zero(), where)],
        "neurons": [("neuron.1", Patch(vector(model.part(1, model.architecture.neurons).weight.numel() // d)), where)],
        "chain": [("attn.2", Add(vector(d)) >> Ablate.of(vector(d, 3)), where)],
        "weight": [
            ("mlp.1", RankOne(vector(model.part(1, model.architecture.neurons).weight.numel() // d), vector(d)))
        ],
    }


def logits(model, ids=IDS, **more):
    with torch.no_grad():
        return model.network(ids, use_cache=False, **more).logits


def fail(*, changed):
    assert changed
    raise RuntimeError("on purpose")


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.network.modules())


def same(one, other):
    return all(torch.equal(a.ids, b.ids) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


@family
def test_alpha_zero_is_bit_identical_and_leaves_no_hook(small, family):
    model = small(family)
    plain, before, v = logits(model), hooks(model), vector(model.d)
    d = Direction(v, Site("resid", 1), "t")
    for nothing in (Add(v, 0.0), Add(v) >> Add(-v), Add(d - d)):
        with steer(model, [("resid.1", nothing), ("mlp.2", nothing)]):
            assert hooks(model) == before
            assert torch.equal(logits(model), plain)
    with steer(model, [("attn.1", Reweight(1.0)), ("mlp.1", RankOne(torch.zeros(3), v))]):
        assert torch.equal(logits(model), plain)
    with steer(model, [("resid.1", Add(v, 1e-3))]):
        assert not torch.equal(logits(model), plain)


@family
def test_hooks_and_weights_are_restored_after_an_exception(small, family):
    model = small(family)
    weights = {name: value.clone() for name, value in model.network.state_dict().items()}
    plain, before = logits(model), hooks(model)
    for edits in [*every_edit(model).values(), [("attn.1", Reweight(3.0), [torch.ones(3).bool()] * 2)]]:
        with pytest.raises(RuntimeError, match="on purpose"), steer(model, edits, prompts=[3, 3]):
            fail(changed=not torch.equal(logits(model), plain))
        assert hooks(model) == before
        assert torch.equal(logits(model), plain)
    assert all(torch.equal(value, weights[name]) for name, value in model.network.state_dict().items())


@family
def test_vector_is_added_to_the_selected_tokens(small, family):
    model, seen = small(family), {}
    v = vector(model.d)

    def run(*edits):
        with (
            steer(model, edits, prompts=[4, 2]),
            read_hooks(model, [("resid", 1)], lambda *a: seen.update(h=a[2].clone())),
        ):
            logits(model)
        return seen["h"]

    plain = run()
    for where, moved in {
        "all": torch.ones(2, 6),
        "prompt": torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]),
        "generated": torch.tensor([[0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1]]),
        "last": torch.tensor([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1]]),
    }.items():
        torch.testing.assert_close(run(("resid.1", Add(v), where)) - plain, moved[..., None] * v, rtol=1e-4, atol=1e-5)
    masks = [torch.tensor([True, False, False, True]), torch.tensor([False, True])]
    moved = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0]])
    torch.testing.assert_close(run(("resid.1", Add(v), masks)) - plain, moved[..., None] * v, rtol=1e-4, atol=1e-5)


@family
@pytest.mark.parametrize("where", ["all", "prompt", "generated", "last"])
def test_generation_does_not_depend_on_cache_or_batch(small, family, where):
    model = small(family)
    plain, how = generate(model, PROMPTS, (), DecodingConfig(6)), DecodingConfig(6)
    changed = 0
    for edits in (e for name, e in every_edit(model, where).items() if name in CACHED):
        said = generate(model, PROMPTS, edits, how)
        assert same(said, generate(model, PROMPTS, edits, replace(how, cache=False)))
        assert same(said, [generate(model, [p], edits, how)[0] for p in PROMPTS])
        changed += not same(said, plain)
    assert changed >= 2, "the edits change what is said, or the comparison could not fail"


@family
@pytest.mark.parametrize(
    "how",
    [DecodingConfig(6, beams=3, samples=2), DecodingConfig(6, temperature=1.0, samples=2, top_p=0.9, seed=3)],
    ids=["beams", "sampled"],
)
def test_beams_and_samples_do_not_depend_on_the_batch(small, family, how):
    model = small(family)
    masks = [torch.arange(len(model.tokenizer(p).input_ids)) % 2 == 0 for p in PROMPTS]
    for where in ("last", masks):
        edits = [("resid.1", Add(vector(model.d), 20.0), where)]
        said = generate(model, PROMPTS, edits, how)
        assert [len(row) for row in said] == [2, 2, 2]
        assert same(said, generate(model, PROMPTS, edits, replace(how, cache=False)))
        alone = [generate(model, [p], edits_for_prompts(edits, [i]), how)[0] for i, p in enumerate(PROMPTS)]
        assert same(said, alone)
        assert same(
            said[::-1], generate(model, PROMPTS[::-1], edits_for_prompts(edits, [2, 1, 0]), replace(how, batch=2))
        )
        assert where != "last" or not same(said, generate(model, PROMPTS, (), how))


@pytest.mark.parametrize("family", [*FAMILIES, "bloom", "falcon", "gemma3_text", "gptj", "mixtral", "opt", "phi3"])
def test_decoded_tokens_are_those_of_transformers(tiny, monkeypatch, family):
    """Greedy and sampled, of rows of several lengths; a family with steps of its own is left to `generate`."""
    model = outspoken(tiny(family))
    hows = (DecodingConfig(12), DecodingConfig(6, temperature=1.0, samples=2, seed=1))
    own = [generate(model, PROMPTS, (), how) for how in hows]
    assert can_decode(model) == (family != "phi3")
    assert len({tuple(row[0].ids.tolist()) for row in own[0]}) > 1
    monkeypatch.setattr("ontogeny.steering.generate.can_decode", lambda model: False)
    assert all(same(one, generate(model, PROMPTS, (), how)) for one, how in zip(own, hows, strict=True))


def test_samples_differ_by_seed_and_follow_the_probabilities(small):
    model = small("gpt2")
    one, two = (generate(model, PROMPTS, (), DecodingConfig(6, temperature=1.0, seed=seed)) for seed in (0, 1))
    assert not same(one, two)
    assert same(one, generate(model, PROMPTS, (), DecodingConfig(6, temperature=1.0, seed=0)))
    drawn = generate(model, ["The"], (), DecodingConfig(1, temperature=1.0, samples=3000, batch=1))[0]
    first = torch.stack([torch.cat([g.ids, torch.tensor([1])])[:1] for g in drawn])[:, 0].bincount(minlength=300) / 3000
    wanted = logits(model, torch.tensor([model.tokenizer("The").input_ids]))[0, -1].softmax(-1)
    assert (first - wanted).abs().sum() / 2 < 0.2
    assert (first - torch.ones(300) / 300).abs().sum() / 2 > (first - wanted).abs().sum() / 2


def test_generation_config_of_the_folder_is_ignored_but_for_end_tokens(tiny):
    model = load_model(tiny("gpt2", seed=1))
    plain = generate(model, PROMPTS, (), DecodingConfig(8))
    habits = model.network.generation_config
    habits.repetition_penalty, habits.no_repeat_ngram_size, habits.do_sample, habits.temperature = 9.0, 1, True, 0.1
    habits.min_new_tokens = 7
    assert same(plain, generate(model, PROMPTS, (), DecodingConfig(8)))
    assert model.network.generation_config is habits
    habits.eos_token_id = [1, int(plain[0][0].ids[3])]
    first = plain[0][0].ids.tolist().index(habits.eos_token_id[1])
    assert torch.equal(generate(model, PROMPTS, (), DecodingConfig(8))[0][0].ids, plain[0][0].ids[:first])


@family
def test_padding_side_does_not_matter(small, family):
    model, row = small(family), torch.tensor([5, 17, 40, 9])
    masks = [torch.tensor([False, True, True, False])]
    for edits in ([("resid.1", Add(vector(model.d)), masks)], [("resid.1", Add(vector(model.d)), "last")]):
        with steer(model, edits, prompts=[4]):
            bare = logits(model, row[None])[0]
        for left in (True, False):
            ids, mask = torch.zeros(1, 7, dtype=torch.long), torch.zeros(1, 7, dtype=torch.long)
            at = slice(3, 7) if left else slice(0, 4)
            ids[0, at], mask[0, at] = row, 1
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            with steer(model, edits, prompts=[4]):
                padded = logits(model, ids, attention_mask=mask, position_ids=positions)[0, at]
            torch.testing.assert_close(padded, bare, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(bare, logits(model, row[None])[0], rtol=1e-2)


@family
def test_reweight_multiplies_the_attention_pattern(small, family):
    model = small(family)
    model.network.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            plain = model.network(IDS, output_attentions=True).attentions
            keys = [torch.tensor([False, True, False]), torch.tensor([True, False, False])]
            with steer(model, [("attn.1", Reweight(5.0), keys)], prompts=[3, 3]):
                found = model.network(IDS, output_attentions=True).attentions
    finally:
        model.network.set_attn_implementation("sdpa")
    factor = torch.ones(2, 1, 1, 6)
    factor[0, ..., 1], factor[1, ..., 0] = 5, 5
    wanted = plain[0] * factor
    torch.testing.assert_close(found[0], wanted / wanted.sum(-1, keepdim=True), rtol=1e-4, atol=1e-6)
    assert not torch.equal(found[1], plain[1])


@family
def test_reweighted_generation_is_the_same_with_and_without_cache(small, family):
    model = small(family)
    masks = [torch.arange(len(model.tokenizer(p).input_ids)) < 1 for p in PROMPTS]
    edits = [("attn.1", Reweight(50.0), masks), ("attn.2", Reweight(0.0), masks)]
    for one in (edits, *control_edits(edits, [0])):
        said = generate(model, PROMPTS, one, DecodingConfig(5))
        assert same(said, generate(model, PROMPTS, one, DecodingConfig(5, cache=False)))
        assert same(said[1:2], generate(model, PROMPTS[1:2], edits_for_prompts(one, [1]), DecodingConfig(5)))


@pytest.mark.parametrize("family", sorted(set(SHAPES) - {*FAMILIES, "bert"}))
def test_steered_generation_does_not_depend_on_cache_or_batch_in_any_family(small, family):
    model = small(family)
    masks = [torch.arange(len(model.tokenizer(p).input_ids)) < 1 for p in PROMPTS]
    many = [
        ("resid.1", Add(4 * vector(model.d)), "last"),
        ("mlp.2", Zero(), "generated"),
        ("attn.1", Ablate.of(vector(model.d))),
    ]
    if family != "bloom":  # its attention takes no mask by name, and that is said
        many.append(("attn.2", Reweight(20.0), masks))
    said = generate(model, PROMPTS, many, DecodingConfig(4))
    assert same(said, generate(model, PROMPTS, many, DecodingConfig(4, cache=False)))
    assert same(said[:1], generate(model, PROMPTS[:1], edits_for_prompts(many, [0]), DecodingConfig(4)))
    assert not same(said, generate(model, PROMPTS, (), DecodingConfig(4)))


def test_masked_language_models_are_rejected(small):
    for make in (lambda m: generate(m, ["A"]), lambda m: token_log_likelihoods(m, tokenize_answers(m, [("A", " b")]))):
        with pytest.raises(BadInput, match=r"bert .*predicts no next token"):
            make(small("bert"))


@family
def test_log_likelihoods_do_not_depend_on_padding(small, family):
    model = small(family)
    pairs = [("Who?", " A dog"), ("The ball is", " red"), ("Hm.", " Nobody in the whole wide world knows")]
    answers = tokenize_answers(model, pairs)
    assert [a.tokens for a in answers] == [len(text) for _, text in pairs], "each byte is a token here"
    for edits in ((), [("resid.1", Add(vector(model.d)), "generated")]):
        together = token_log_likelihoods(model, answers, edits)
        alone = [token_log_likelihoods(model, [a], edits)[0] for a in answers]
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        for answer, score in zip(answers, together, strict=True):
            with steer(model, edits, prompts=[answer.prompt]):
                whole = logits(model, answer.ids[None])[0].log_softmax(-1)
            by_hand = [whole[i - 1, answer.ids[i]] for i in range(answer.prompt, len(answer.ids))]
            torch.testing.assert_close(score, torch.stack(by_hand), rtol=1e-5, atol=1e-5)
    assert log_likelihoods(together).tolist() == pytest.approx([float(s.double().sum()) for s in together])
    assert mean_log_likelihoods(together)[2] == pytest.approx(float(together[2].mean()), rel=1e-5)


@family
@pytest.mark.parametrize("site", ["resid.0", "resid.1", "resid.2", "attn.1", "mlp.2", "head.2.1", "neuron.1"])
def test_baked_vector_equals_steering_at_all_positions(small, family, site, tmp_path):
    model, plain = small(family), logits(small(family))
    part = Site.parse(site)
    width = {"head": model.d_head, "neuron": model.part(1, model.architecture.neurons).weight.numel() // model.d}.get(
        part.part, model.d
    )
    edits = [(site, Add(vector(width)))]
    baked = bake_edits(model, edits)
    with steer(model, edits):
        wanted = logits(model)
    torch.testing.assert_close(logits(baked), wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(wanted, plain, rtol=1e-2)
    assert torch.equal(logits(model), plain), "the model itself is untouched"
    torch.testing.assert_close(logits(load_model(save_baked(baked, tmp_path / "baked"))), wanted, rtol=1e-4, atol=1e-4)


@family
def test_baked_ablation_equals_steering(small, family, tmp_path):
    model, u, seen = small(family), vector(32), []
    baked = bake_edits(model, ablate_everywhere(model, u))
    with steer(model, ablate_everywhere(model, u)):
        wanted = logits(model)
    torch.testing.assert_close(logits(baked), wanted, rtol=1e-4, atol=1e-4)
    with read_hooks(baked, [("resid", layer) for layer in range(3)], lambda *a: seen.append(a[2] @ u)):
        logits(baked)
    assert max(float(s.abs().max()) for s in seen) < 1e-3
    assert not torch.allclose(wanted, logits(model), rtol=1e-2)
    save_baked(baked, tmp_path / "baked")
    mixed = [
        ("attn.2", Add(u) >> Ablate.of(vector(32, 9))),
        ("attn.1", Ablate.of(u)),
        ("head.2.3", Zero()),
        ("mlp.2", Zero()),
        ("mlp.1", RankOne(vector(baked.part(1, baked.architecture.neurons).weight.numel() // 32), u)),
    ]
    with steer(model, mixed):
        wanted = logits(model)
    torch.testing.assert_close(logits(bake_edits(model, mixed)), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("edits", "more", "words"),
    [
        ([("resid.9", Add(torch.ones(32)))], {}, "resid.9 does not exist"),
        ([("head.1.9", Zero())], {}, "head.1.9 does not exist"),
        ([("resid.1", Add(torch.ones(31)))], {}, "edit at resid.1 must have 32 dimensions, got 31"),
        ([("head.1.1", Add(torch.ones(32)))], {}, "must have 8 dimensions"),
        ([("attn.1", Reweight(2.0).null(), "prompt")], {"prompts": [3]}, "needs one mask for each prompt"),
        ([("mlp.1", RankOne(torch.ones(4), torch.ones(32)), "last")], {"prompts": [3]}, "must be of `all` tokens"),
        ([("mlp.1", RankOne(torch.ones(4), torch.ones(32)))], {}, "dimensions, got 4"),
        ([("resid.1", Reweight(2.0))], {}, "use attn.1"),
        ([("resid.1", RankOne(torch.ones(4), torch.ones(32)))], {}, "weights are edited at attn.l or mlp.l"),
        ([("resid.1", Add(torch.ones(32)), "last")], {}, "pass `prompts`"),
        ([("resid.1", Add(torch.ones(32)), "lats")], {}, "did you mean last"),
        ([("resid.1", Add(torch.ones(32)), [torch.ones(3)])], {}, "one mask of True and False"),
    ],
)
def test_edits_that_do_not_fit_are_rejected_before_the_forward_pass(small, edits, more, words):
    with pytest.raises(BadInput, match=words) as caught, steer(small("gpt2"), edits, **more):
        pass
    assert "\n" not in str(caught.value)


def test_invalid_arguments_are_rejected_in_one_line(small):
    model = small("gpt2")
    for make, words in (
        (lambda: bake_edits(model, [("resid.1", Add(torch.ones(32)), "last")]), "a baked edit must be of `all` tokens"),
        (lambda: bake_edits(model, [("resid.1", Ablate.of(torch.ones(32)))]), "has no equivalent in the weights"),
        (
            lambda: bake_edits(model, [("resid.1", Clamp.to_value(torch.ones(32), 1.0))]),
            "has no equivalent in the weights",
        ),
        (lambda: DecodingConfig(temperature=0.0, samples=2), "must be 1 for greedy decoding"),
        (lambda: DecodingConfig(temperature=1.0, beams=2), "must be 1 for sampling"),
        (lambda: DecodingConfig(tokens=0), "must be at least 1"),
        (lambda: DecodingConfig(temperature=float("nan")), "got nan"),
        (lambda: generate(model, [""]), "must have tokens"),
        (lambda: generate(model, ["x" * 200]), "exceed the context"),
        (lambda: tokenize_answers(model, [("Who?", " ")]), "must have tokens"),
        (lambda: tokenize_answers(model, [("", "You")]), "must follow a prompt"),
        (lambda: check_direction(model, Direction(torch.ones(32), Site("resid", 7), "d")), "resid.7 does not exist"),
        (lambda: check_direction(model, Direction(torch.ones(9), Site("resid", 1), "d")), "got 9"),
        (
            lambda: check_direction(model, Direction(torch.ones(32), Site("resid", 1), "d", tokenizer="abc")),
            "another tokenizer",
        ),
    ):
        with pytest.raises(BadInput, match=words) as caught:
            make()
        assert "\n" not in str(caught.value)
    check_direction(model, Direction(torch.ones(32), Site("resid", 1), "d", tokenizer=tokenizer_fingerprint(model)))


def test_real_model_continues_as_steered(stories260k):
    model = load_model(stories260k)
    prompts = ["Once upon a time", "Tim had a big red ball and"]
    plain, zero = (
        generate(model, prompts, (), DecodingConfig(12)),
        generate(model, prompts, [("resid.3", Add(torch.ones(64), 0.0))], DecodingConfig(12)),
    )
    assert same(plain, zero)
    assert plain[0][0].text.startswith(", there was a")
    for where in ("all", "last", "generated"):
        edits = [("resid.3", Add(vector(64)), where)]
        said = generate(model, prompts, edits, DecodingConfig(12))
        assert same(said, generate(model, prompts, edits, DecodingConfig(12, cache=False)))
        assert not same(said, plain)
