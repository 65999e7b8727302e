"""Entropy neurons: one that is planted is found, in every family; in its absence none is; numbers that can be told by hand."""

import math

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.models.hooks import read_hooks, write_hooks
from ontogeny.models.model import load_model, output_weight
from ontogeny.neurons.entropy_neurons import (
    entropy_neuron_candidates,
    final_norm,
    matched_share,
    measure_norm,
    neuron_output_vectors,
    neuron_overlap,
    neuron_statistics,
    norm_matched_neurons,
    output_and_unembedding,
)
from ontogeny.neurons.last_layer_cache import entropy_of_logits
from ontogeny.neurons.mean_ablation import entropy_effects, mean_ablate
from ontogeny.sites import Site
from tests.helpers.tiny_models import SHAPES

MIXTURES = ("mixtral", "olmoe", "qwen2_moe", "qwen3_moe")
FAMILIES = sorted(set(SHAPES) - {"bert", *MIXTURES})
TEXTS = ("a cat sat on a mat", "the king of the hill went home", "0123456789 and more", "who is there ?")
PLANTED = 7


@torch.no_grad()
def lively(folder, *, scale=6.0):
    """A random model with opinions: the scores of a fresh one hardly differ."""
    model = load_model(folder)
    out = model.network.get_output_embeddings()
    if out.weight is model.network.get_input_embeddings().weight:
        out.weight = torch.nn.Parameter(out.weight.clone(), requires_grad=False)
    for parameter in model.network.parameters():
        if parameter.ndim == 2:
            parameter.mul_(scale)
    return model


@torch.no_grad()
def plant(model, *, length=10.0):
    """One neuron that writes far into a direction that the vocabulary does not read."""
    e = torch.zeros(model.d)
    e[2], e[3], e[4], e[5] = 1.0, -1.0, 1.0, -1.0
    e /= e.norm()
    gain = final_norm(model).gain.float()
    read = gain * e
    read /= read.norm()
    u = model.network.get_output_embeddings().weight
    u -= torch.outer(u @ read, read)
    rows = output_weight(model, Site("mlp", model.layers))
    written = e
    if path := model.architecture.mlp_added:
        written = e / measure_norm(model.part(model.layers, path), model.d, e).gain.float()
    rows[PLANTED] = length * rows.norm(dim=1).median() * written / written.norm()
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_planted_neuron_is_found_by_its_weights_in_every_family(tiny, family):
    model = lively(tiny(family))
    before = neuron_statistics(model)
    found = neuron_statistics(plant(model))
    assert before.norm.shape == (output_weight(model, Site("mlp", model.layers)).shape[0],)
    assert found.null_share[PLANTED] > 0.999
    assert found.variance[PLANTED] < 1e-6
    assert (
        entropy_neuron_candidates(found, count=1) == entropy_neuron_candidates(found, by="null", count=1) == [PLANTED]
    )
    # The control: before it was planted, nothing of the kind.
    assert before.null_share.max() < 0.99
    assert before.variance.min() > 100 * found.variance[PLANTED].clamp(min=1e-12)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma", "olmo", "falcon"])
def test_mean_ablation_confirms_a_planted_neuron_only(tiny, family):
    bare = mean_ablate(lively(tiny(family)), TEXTS, count=5)
    assert bare.confirmed == []
    assert max(e.size for e in bare.others) > 0
    found = mean_ablate(plant(lively(tiny(family))), TEXTS, count=5)
    assert PLANTED in found.confirmed
    mine = next(e for e in found.candidates if e.neuron == PLANTED)
    assert mine.indirect > 0.9
    assert mine.size > 1.5 * max(e.size for e in found.others)


@pytest.mark.parametrize("family", FAMILIES)
def test_effect_equals_that_of_a_model_with_the_neuron_fixed(tiny, family):
    """Against the whole model, run with the neuron's activation overwritten by its mean."""
    model = lively(tiny(family))
    ids = model.tokenizer(TEXTS[0], return_tensors="pt").input_ids
    seen = []
    with torch.no_grad(), read_hooks(model, [("neuron", model.layers)], lambda *got: seen.append(got[2].clone())):
        plain = model.network(ids).logits
    liveliest = int(seen[0][0].std(0).argmax())
    (effect,) = entropy_effects(model, TEXTS[:1], [liveliest])

    def held(value):
        value = value.clone()
        value[..., liveliest] = seen[0][..., liveliest].mean()
        return value

    with torch.no_grad(), write_hooks(model, Site("neuron", model.layers), held):
        changed = entropy_of_logits(model.network(ids).logits) - entropy_of_logits(plain)
    assert float(effect.signed[0]) == pytest.approx(float(changed.mean()), abs=2e-5)
    assert float(effect.total[0]) == pytest.approx(float(changed.abs().mean()), abs=2e-5)
    assert effect.total[0] > 1e-4


@pytest.mark.parametrize("family", MIXTURES)
def test_neurons_of_a_mixture_of_experts_are_rejected(tiny, family):
    """Each expert has its own: neither weights nor activations are taken from another module."""
    model = lively(tiny(family))
    site = Site("neuron", model.layers)
    for asked in (
        lambda: neuron_statistics(model),
        lambda: neuron_output_vectors(model),
        lambda: entropy_effects(model, TEXTS, [0]),
        lambda: read_hooks(model, [("neuron", 1)], print).__enter__(),
        lambda: write_hooks(model, site, torch.zeros_like).__enter__(),
    ):
        with pytest.raises(BadInput, match=f"got {family}, a mixture of experts: use a site of attention"):
            asked()


@torch.no_grad()
def test_frozen_effect_holds_the_scale_of_the_norm(tiny):
    """Held, the scores move by the normed direction alone: by hand for LayerNorm."""
    model = lively(tiny("gpt2"))
    ids = model.tokenizer(TEXTS[0], return_tensors="pt").input_ids
    got = {}
    with (
        torch.no_grad(),
        read_hooks(model, [("neuron", 2), ("resid", 2)], lambda p, _, v: got.__setitem__(p, v[0].clone())),
    ):
        plain = model.network(ids).logits[0]
    ln = model.network.transformer.ln_f
    shift = (got["neuron"][:, 3].mean() - got["neuron"][:, 3])[:, None] * output_weight(model, Site("mlp", 2))[3]
    sigma = (got["resid"].var(1, unbiased=False, keepdim=True) + ln.eps).sqrt()
    moved = (shift - shift.mean(1, keepdim=True)) / sigma * ln.weight @ model.network.lm_head.weight.T
    by_hand = (entropy_of_logits(plain + moved) - entropy_of_logits(plain)).abs().mean()
    (effect,) = entropy_effects(model, TEXTS[:1], [3])
    assert float(effect.frozen[0]) == pytest.approx(float(by_hand), rel=1e-3)


def test_logit_variance_equals_that_of_all_cosines(tiny):
    model = lively(tiny("gpt_neox"))
    found, raw = neuron_statistics(model), neuron_statistics(model, processing="raw")
    w, u = output_and_unembedding(model)
    cosines = torch.nn.functional.normalize(w, dim=1) @ torch.nn.functional.normalize(u, dim=1).T
    assert torch.allclose(found.variance, cosines.var(1, unbiased=False), atol=1e-12)
    assert not torch.allclose(found.variance, raw.variance, rtol=1e-3)
    _, _, vh = torch.linalg.svd(u, full_matrices=False)
    # Centred: one of the singular values is 0 by that, beside the tenth of the width that is asked for.
    assert found.null_dimensions == 3
    by_svd = (torch.nn.functional.normalize(w, dim=1) @ vh[-4:].T).norm(dim=1)
    assert torch.allclose(found.null_share, by_svd, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_norms_are_measured(tiny, family):
    model = load_model(tiny(family))
    norm = final_norm(model)
    module = model.network.get_submodule(model.architecture.final_norm)
    x = 3 * torch.randn(5, model.d, generator=torch.Generator().manual_seed(0)) + 1
    straight, out = norm.straight(x), module(x).double() - norm.bias
    scale = (out * straight).sum(1) / straight.square().sum(1)
    assert torch.allclose(out, scale[:, None] * straight, atol=1e-4)
    assert norm.centres == ("rms" not in type(module).__name__.lower())


def test_overlap_equals_values_by_hand():
    same = neuron_overlap([1, 2, 3], [1, 2, 3], among=10)
    assert (same.shared, same.iou) == (3, 1.0)
    assert same.p == pytest.approx(1 / math.comb(10, 3))
    apart = neuron_overlap([1, 2, 3], [4, 5, 6], among=10)
    assert (apart.iou, apart.p) == (0.0, 1.0)
    assert 0 < apart.chance < apart.chance_high <= 1
    with pytest.raises(BadInput, match="must not be empty"):
        neuron_overlap([], [1], among=10)


def test_controls_have_similar_norm_and_are_distinct(tiny):
    found = neuron_statistics(lively(tiny("gpt_neox")))
    chosen = entropy_neuron_candidates(found, count=5)
    others = norm_matched_neurons(found, chosen, each=2)
    assert len(set(others)) == 10
    assert not set(others) & set(chosen)
    assert float((found.norm[others].mean() / found.norm[chosen].mean() - 1).abs()) < 0.2
    assert set(entropy_neuron_candidates(found, count=5)) <= set(
        (found.norm > found.norm.quantile(0.75)).nonzero().flatten().tolist()
    )


def test_neurons_correspond_only_between_related_models(tiny):
    one, other, llama = (
        neuron_output_vectors(load_model(tiny(*which)))
        if len(which) == 1
        else neuron_output_vectors(load_model(tiny(which[0], seed=which[1])))
        for which in (("gpt_neox",), ("gpt_neox", 1), ("llama",))
    )
    assert matched_share(one, one + 0.1 * other) == 1.0
    assert matched_share(one, other) < 0.2
    with pytest.raises(BadInput, match="one architecture"):
        matched_share(one, llama)


def test_rejects_models_without_entropy_neurons(tiny):
    with pytest.raises(BadInput, match="causal"):
        neuron_statistics(load_model(tiny("bert")))
    with pytest.raises(BadInput, match="needs texts, got none"):
        entropy_effects(load_model(tiny("gpt2")), [], [0])
    with pytest.raises(BadInput, match="must be in"):
        entropy_neuron_candidates(neuron_statistics(load_model(tiny("gpt2"))), top=0)
