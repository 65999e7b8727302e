"""Patching behind standing keys and values is patching: the same numbers as whole passes, at the price of what can change."""

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.patching.activation_patching import (
    PatchingCost,
    PatchingPrompts,
    common_prefix_length,
    patch,
    run_baseline,
    run_prefix,
    why_inexact,
)
from ontogeny.patching.attribution_patching import attribution_patch, stream_gradients
from ontogeny.patching.noise import noise_embeddings, noise_scale, norm_matched_noise
from tests.helpers.tiny_models import SHAPES, outspoken

CAUSAL = sorted(set(SHAPES) - {"bert"})
START, ROWS, TOKENS, DIFFERS = 5, 4, 6, 2


def drawn(seed=0):
    """Prompts that differ in one token, behind a common start."""
    g = torch.Generator().manual_seed(seed)
    start, clean = torch.randint(3, 300, (START,), generator=g), torch.randint(3, 300, (ROWS, TOKENS), generator=g)
    corrupt = clean.clone()
    corrupt[:, DIFFERS] = (clean[:, DIFFERS] + 7) % 297 + 3
    right, wrong = torch.randint(3, 300, (2, ROWS), generator=g)
    return start, PatchingPrompts(clean, right, wrong), PatchingPrompts(corrupt, right, wrong)


def runs(model, *, whole=False, cost=None):
    start, clean, corrupt = drawn()
    cost = cost or PatchingCost()
    begun = run_prefix(model, start, cost, whole=whole)
    return run_baseline(model, clean, begun, cost), run_baseline(model, corrupt, begun, cost)


def everywhere(model):
    return torch.ones(model.layers + 1, ROWS, TOKENS, dtype=torch.bool)


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.network.modules())


@pytest.mark.parametrize("family", CAUSAL)
def test_every_cell_equals_a_full_forward_pass(tiny, family):
    model = outspoken(tiny(family))
    clean, corrupt = runs(model)
    slow_clean, slow_corrupt = runs(model, whole=True)
    torch.testing.assert_close(clean.streams, slow_clean.streams, rtol=1e-4, atol=1e-5)
    ours = patch(model, corrupt, clean.streams, everywhere(model), PatchingCost())
    theirs = patch(model, slow_corrupt, slow_clean.streams, everywhere(model), PatchingCost())
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert (ours - corrupt.odds[:, None])[1, :, DIFFERS:-1].abs().max() > 1e-2
    assert why_inexact(model, corrupt, clean.streams, DIFFERS, PatchingCost()) is None
    assert hooks(model) == 0
    assert not any("forward" in vars(model.block(layer)) for layer in range(1, model.layers + 1))


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])  # the second caps its scores
def test_unpatched_log_odds_equal_transformers(tiny, family):
    model = outspoken(tiny(family))
    start, asked, _ = drawn()
    clean, _ = runs(model)
    with torch.no_grad():
        logits = model.network(torch.cat([start.expand(ROWS, -1), asked.ids], 1)).logits[:, -1].log_softmax(-1)
    rows = torch.arange(ROWS)
    torch.testing.assert_close(clean.odds, logits[rows, asked.right] - logits[rows, asked.wrong], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", CAUSAL)
def test_patching_a_run_with_itself_is_bit_identical(tiny, family):
    model = outspoken(tiny(family))
    _, corrupt = runs(model)
    cost = PatchingCost()
    found = patch(model, corrupt, corrupt.streams.clone(), everywhere(model), cost)
    assert torch.equal(found, corrupt.odds[None, :, None].expand_as(found))
    assert cost.passes == 0
    # The same passes, made to run by a change that is none in another cell's place, give the same bits twice.
    moved = corrupt.streams + 1e-3
    twice = [patch(model, corrupt, moved, everywhere(model), PatchingCost()) for _ in range(2)]
    assert torch.equal(*twice)
    assert not torch.equal(twice[0], found)


@pytest.mark.parametrize("family", ["gpt_neox", "llama", "gpt2"])
def test_patching_every_token_of_a_layer_gives_the_other_run(tiny, family):
    """All cells at once: the stream of the other run, whatever the layer, gives the other run's answer."""
    from ontogeny.models.hooks import read_hooks, write_hooks
    from ontogeny.patching.activation_patching import answer_log_odds
    from ontogeny.sites import Site

    model = outspoken(tiny(family))
    clean, corrupt = runs(model, whole=True)
    ids = torch.cat([corrupt.prefix.ids.expand(ROWS, -1), corrupt.prompts.ids], 1)
    seen = []
    for layer in range(model.layers + 1):
        with (
            torch.no_grad(),
            write_hooks(
                model, Site("resid", layer), lambda h, at=layer: torch.cat([h[:, :START], clean.streams[at]], 1)
            ),
            read_hooks(model, [("norm", 0)], lambda _, __, value: seen.append(value[:, -1])),
        ):
            model.body(input_ids=ids, use_cache=False)
        odds = answer_log_odds(model, seen[-1], clean.prompts.right, clean.prompts.wrong)
        torch.testing.assert_close(odds, clean.odds, rtol=1e-4, atol=1e-5)
    # And cell by cell: the one token in which the embeddings differ, and the last token after the last block.
    found = patch(model, corrupt, clean.streams, everywhere(model), PatchingCost())
    torch.testing.assert_close(found[0, :, DIFFERS], clean.odds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[model.layers, :, -1], clean.odds, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(clean.odds, corrupt.odds, atol=1e-3)


def test_computed_cost_equals_the_needed_cost(tiny):
    """Counted by hooks on the attention of every block, which a skipped block does not call."""
    model = outspoken(tiny("gpt_neox"))
    ran = []
    handles = [
        model.part(layer, model.architecture.attn).register_forward_pre_hook(
            lambda _, args, kwargs: ran.append((args[0] if args else kwargs["hidden_states"]).shape[:2].numel()),
            with_kwargs=True,
        )
        for layer in range(1, model.layers + 1)
    ]
    cost = PatchingCost()
    clean, corrupt = runs(model, cost=cost)
    patch(model, corrupt, clean.streams, everywhere(model), cost)
    for handle in handles:
        handle.remove()
    # One token of one row more is what asking for the form of a block's output costs.
    assert sum(ran) == cost.computed == cost.needed + model.layers
    cells = sum((model.layers - at) * (TOKENS - t) for at in range(1, model.layers) for t in range(DIFFERS, TOKENS))
    by_hand = (
        START * model.layers + 2 * ROWS * TOKENS * model.layers + ROWS * (cells + model.layers * (TOKENS - DIFFERS))
    )
    assert cost.needed == by_hand
    whole = PatchingCost()
    slow = runs(model, whole=True, cost=whole)
    patch(model, slow[1], slow[0].streams, everywhere(model), whole)
    assert whole.computed > 2 * cost.computed


def test_any_subset_of_rows_can_be_patched(tiny):
    model = outspoken(tiny("llama"))
    clean, corrupt = runs(model)
    every = patch(model, corrupt, clean.streams, everywhere(model), PatchingCost())
    some = torch.rand(every.shape, generator=torch.Generator().manual_seed(3)) < 0.4
    found = patch(model, corrupt, clean.streams, some, PatchingCost())
    torch.testing.assert_close(found[some], every[some], rtol=1e-4, atol=1e-5)
    assert torch.equal(found[~some], corrupt.odds[None, :, None].expand_as(found)[~some])


@pytest.mark.parametrize("family", CAUSAL)
def test_clean_embeddings_restore_a_noised_run(tiny, family):
    model = outspoken(tiny(family))
    start, asked, _ = drawn()
    begun = run_prefix(model, start, PatchingCost())
    clean = run_baseline(model, asked, begun, PatchingCost())
    where = torch.zeros(ROWS, TOKENS, dtype=torch.bool)
    where[:, DIFFERS] = True
    sigma = noise_scale(clean.streams[0], where, 3.0)
    noisy = noise_embeddings(model, asked, begun, where, sigma, PatchingCost(), seeds=range(ROWS))
    assert (noisy.odds - clean.odds).abs().max() > 1e-3
    assert torch.equal(noisy.streams[0][~where], clean.streams[0][~where])
    found = patch(model, noisy, clean.streams, everywhere(model), PatchingCost())
    torch.testing.assert_close(found[0, :, DIFFERS], clean.odds, rtol=1e-4, atol=1e-5)
    none = noise_embeddings(model, asked, begun, where, 0 * sigma, PatchingCost(), seeds=range(ROWS))
    assert torch.equal(none.odds, clean.odds)
    assert why_inexact(model, noisy, clean.streams, DIFFERS, PatchingCost()) is None


@pytest.mark.parametrize("family", CAUSAL)
def test_attribution_patching_is_the_slope_of_exact_patching(tiny, family):
    model = outspoken(tiny(family))
    clean, corrupt = runs(model)
    small = 1e-2
    near = corrupt.streams + small * (clean.streams - corrupt.streams)
    exact = patch(model, corrupt, near, everywhere(model), PatchingCost()) - corrupt.odds[:, None]
    first = attribution_patch(model, corrupt, near, PatchingCost()) - corrupt.odds[:, None]
    assert torch.cosine_similarity(first.flatten(), exact.flatten(), 0) > 0.99
    assert 0.9 < float(first.norm() / exact.norm()) < 1.1
    assert exact.abs().max() > 1e-4
    assert (stream_gradients(model, corrupt, PatchingCost())[model.layers, :, :-1] == 0).all()


def test_planted_direction_has_an_effect_and_random_ones_have_none(tiny):
    """Along the gradient a change moves the answer; random changes of the same length, taken with both signs, do not."""
    model = outspoken(tiny("gpt_neox"))
    _, corrupt = runs(model)
    slopes = stream_gradients(model, corrupt, PatchingCost())
    change = 0.02 * slopes / slopes.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    cell = everywhere(model) & False
    cell[1, :, DIFFERS] = True

    def effect(by):
        return (patch(model, corrupt, corrupt.streams + by, cell, PatchingCost()) - corrupt.odds[:, None])[
            1, :, DIFFERS
        ]

    true = effect(change)
    assert (true > 0).all()
    both = []
    for seed in range(16):
        by = norm_matched_noise(change, seeds=range(100 * seed, 100 * seed + ROWS))
        torch.testing.assert_close(by.norm(dim=-1), change.norm(dim=-1))
        both.append((effect(by) + effect(-by)) / 2)
    both = torch.stack(both).flatten()
    half = 1.96 * both.std() / len(both) ** 0.5
    assert both.mean().abs() <= half + 1e-3 * true.mean()
    assert 2 * half <= 0.1 * true.mean()


def test_inexact_families_are_detected(tiny, monkeypatch):
    model = outspoken(tiny("gpt2"))
    clean, corrupt = runs(model)
    assert why_inexact(model, corrupt, clean.streams, DIFFERS, PatchingCost()) is None
    monkeypatch.setattr("ontogeny.patching.kv_cache.LayerCache.get_seq_length", lambda _: 0)
    assert "from its whole pass" in str(why_inexact(model, corrupt, clean.streams, DIFFERS, PatchingCost()))


def test_masked_language_models_are_rejected(tiny):
    with pytest.raises(BadInput, match="use a causal model"):
        run_prefix(outspoken(tiny("bert")), torch.tensor([5]), PatchingCost())


def test_common_prefix_never_includes_the_last_token():
    assert common_prefix_length([(1, 2, 3), (1, 2, 4)]) == 2
    assert common_prefix_length([(1, 2), (1, 2)]) == 1
    assert common_prefix_length([(1, 2, 3), (4, 2, 3)]) == 0
