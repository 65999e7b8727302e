"""Ways to a steering vector: each finds what was planted, and on nothing finds nothing."""

import pytest
import torch

from ontogeny.errors import BadInput, SingleClassError
from ontogeny.models.hooks import read_hooks
from ontogeny.models.model import load_model, tokenizer_fingerprint
from ontogeny.sites import Site
from ontogeny.steering.methods.caa import ContrastPair, caa
from ontogeny.steering.methods.iti import head_accuracy, iti, iti_edits
from ontogeny.steering.methods.tracing_vector import tracing_vector
from ontogeny.steering.steer import steer

HEADS = [Site("head", layer, head) for layer in (1, 2) for head in range(4)]


def planted(seed=0, n=120, strength=2.0):
    """Eight heads, of which the second and the seventh hold the label."""
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(8, n, 8, generator=g), torch.arange(n) % 2 == 0
    axis = torch.randn(8, generator=g)
    for head in (1, 6):
        x[head] += strength * y[:, None] * axis / axis.norm()
    return x, y, torch.arange(n) // 2, axis / axis.norm()


def test_iti_finds_the_heads_that_hold_the_label_and_their_axis():
    x, y, groups, axis = planted()
    for kind in ("mass_mean", "probe"):
        shifts = iti(x, y, groups, HEADS, k=2, kind=kind)
        assert {shift.site for shift in shifts} == {HEADS[1], HEADS[6]}
        assert all(float(shift.axis @ axis) > 0.8 for shift in shifts)
        assert all(shift.accuracy > 0.7 for shift in shifts)
        assert shifts[0].spread == pytest.approx(
            float((x[HEADS.index(shifts[0].site)] @ shifts[0].axis).std()), rel=1e-4
        )
    random = iti(x, y, groups, HEADS, k=2, kind="random")
    assert all(abs(float(shift.axis @ axis)) < 0.8 for shift in random)
    assert head_accuracy(*planted(strength=0.0)[:3]).max() < 0.68


def test_itis_edits_move_the_chosen_heads_by_alpha_spreads(tiny):
    model = load_model(tiny("llama"))
    shifts = iti(*planted()[:3], HEADS, k=2)
    ids, seen = torch.tensor([[5, 17, 40, 9]]), {}

    def heads(chosen):
        with (
            torch.no_grad(),
            steer(model, chosen, prompts=[3]),
            read_hooks(model, [("head", 1)], lambda *a: seen.update(h=a[2].clone())),
        ):
            model.network(ids, use_cache=False)
        return seen["h"].unflatten(-1, (4, 8))

    moved = heads(iti_edits(shifts, 15.0)) - heads([])
    shift = next(s for s in shifts if s.site.layer == 1)
    torch.testing.assert_close(
        moved[0, 2:, shift.site.head], (15.0 * shift.spread * shift.axis).expand(2, -1), rtol=1e-4, atol=1e-4
    )
    assert not moved[0, :2].any()
    assert not moved[..., [h for h in range(4) if h != shift.site.head], :].any()


def test_caa_is_the_mean_difference_where_the_answers_part(tiny):
    model = load_model(tiny("gpt_neox"))
    pairs = [ContrastPair("Is it so?", " (A", " (B"), ContrastPair("Do you want to?", " yes", " no")]
    sites = [Site("resid", 1), Site("resid", 2)]
    found = caa(model, pairs, sites, origin="test")

    def at(text, token, layer):
        seen = {}
        with torch.no_grad(), read_hooks(model, [("resid", layer)], lambda *a: seen.update(h=a[2])):
            model.network(torch.tensor([model.tokenizer(text).input_ids]), use_cache=False)
        return seen["h"][0, token]

    for direction, layer in zip(found, (1, 2), strict=True):
        differences = [
            # Each byte is a token: "(A" and "(B" part at their last, " yes" and " no" behind their space.
            at("Is it so? (A", 11, layer) - at("Is it so? (B", 11, layer),
            at("Do you want to? yes", 16, layer) - at("Do you want to? no", 16, layer),
        ]
        torch.testing.assert_close(direction.vector, torch.stack(differences).mean(0), rtol=1e-4, atol=1e-5)
        assert direction.facts["gap"] == pytest.approx(float(direction.vector.norm()), rel=1e-5)
        assert (direction.site, direction.tokenizer) == (Site("resid", layer), tokenizer_fingerprint(model))


def test_the_tracing_vector_is_unit_difference_times_spread():
    x, y, _, axis = planted(n=2000, strength=4.0)
    direction = tracing_vector(x[[1]], y, [Site("resid", 1)], origin="test")[0]
    unit = x[1][y].mean(0) - x[1][~y].mean(0)
    unit = unit / unit.norm()
    torch.testing.assert_close(direction.vector, unit * (x[1] @ unit).std(correction=1), rtol=1e-4, atol=1e-5)
    assert float(direction.unit().vector @ axis) > 0.99
    assert direction.scale == "std"
    assert direction.scaled("gap").vector.norm().item() == pytest.approx(4.0, rel=0.05)
    other = tracing_vector(x[[1]], y, [Site("resid", 1)], origin="test", spread_of=3 * x[[1]])[0]
    assert other.vector.norm().item() == pytest.approx(3 * direction.vector.norm().item(), rel=1e-4)


def test_what_cannot_be_learned_from_is_one_line(tiny):
    x, y, groups, _ = planted()
    model = load_model(tiny("gpt2"))
    for make, words in (
        (lambda: iti(x, y, groups, HEADS, k=9), "9 heads cannot be chosen among 8"),
        (lambda: iti(x, y, groups, [Site("resid", 1)] * 8, k=2), "Give heads"),
        (lambda: iti(x, y, groups, HEADS, k=2, kind="prob"), "did you mean probe"),
        (lambda: caa(model, [], [Site("resid", 1)], origin="x"), "needs pairs"),
        (lambda: caa(model, [ContrastPair("a", " b", " b")], [Site("resid", 1)], origin="x"), "the same tokens"),
    ):
        with pytest.raises(BadInput, match=words) as caught:
            make()
        assert "\n" not in str(caught.value)
    with pytest.raises(SingleClassError):
        tracing_vector(x, torch.ones_like(y), HEADS, origin="x")
