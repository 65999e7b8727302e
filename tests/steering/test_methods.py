"""Steering methods: each finds the vector that was planted, and finds nothing where nothing was planted."""

import pytest
import torch

from ontogeny.errors import BadInput, SingleClassError
from ontogeny.models.hooks import read_hooks
from ontogeny.models.model import load_model, tokenizer_fingerprint
from ontogeny.sites import Site
from ontogeny.steering.methods import ContrastPair, TrainingActivations, caa, contrast_differences, iti, tracing_vector
from ontogeny.steering.steer import steer

HEADS = tuple(Site("head", layer, head) for layer in (1, 2) for head in range(4))


def planted(seed=0, n=120, strength=2.0):
    """Eight heads, of which the second and the seventh hold the label."""
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(8, n, 8, generator=g), torch.arange(n) % 2 == 0
    axis = torch.randn(8, generator=g)
    for head in (1, 6):
        x[head] += strength * y[:, None] * axis / axis.norm()
    return x, y, torch.arange(n) // 2, axis / axis.norm()


def of_heads(**options):
    x, y, groups, _ = planted(**options)
    return TrainingActivations(y, groups, {"head": HEADS}, {"head": x})


def of_stream(x, y):
    sites = tuple(Site("resid", i + 1) for i in range(len(x)))
    return TrainingActivations(y, torch.arange(len(y)) // 2, {"resid": sites}, {"resid": x})


def test_iti_finds_the_heads_that_hold_the_label_and_their_axis():
    x, y, groups, axis = planted()
    shifts = iti.fit(of_heads(), ks=(1, 2)).shifts
    assert {site for site, _ in shifts["2"]} == {HEADS[1], HEADS[6]}
    assert shifts["1"] == shifts["2"][:1]
    for site, vector in shifts["2"]:
        unit = vector / vector.norm()
        assert float(unit @ axis) > 0.8
        assert float(vector.norm()) == pytest.approx(float((x[HEADS.index(site)] @ unit).std()), rel=1e-4)
    accuracy = iti.head_accuracy(x, y, groups)
    assert accuracy[[1, 6]].min() > 0.7
    assert iti.head_accuracy(*planted(strength=0.0)[:3]).max() < 0.68


def test_edits_of_iti_move_the_chosen_heads_by_alpha_spreads(tiny):
    model = load_model(tiny("llama"))
    vectors = iti.fit(of_heads(), ks=(2,))
    ids, seen = torch.tensor([[5, 17, 40, 9]]), {}

    def heads(edits):
        with (
            torch.no_grad(),
            steer(model, edits, prompts=[3]),
            read_hooks(model, [("head", 1)], lambda *a: seen.update(h=a[2].clone())),
        ):
            model.network(ids, use_cache=False)
        return seen["h"].unflatten(-1, (4, 8))

    moved = heads(vectors.edits(model, "2", 15.0)) - heads([])
    site, vector = next(shift for shift in vectors.shifts["2"] if shift[0].layer == 1)
    torch.testing.assert_close(moved[0, 2:, site.head], (15.0 * vector).expand(2, -1), rtol=1e-4, atol=1e-4)
    assert not moved[0, :2].any()
    assert not moved[..., [h for h in range(4) if h != site.head], :].any()


def test_caa_is_the_mean_difference_at_the_first_token_that_differs(tiny):
    model = load_model(tiny("gpt_neox"))
    pairs = [ContrastPair("Is it so?", " (A", " (B"), ContrastPair("Do you want to?", " yes", " no")]
    sites = (Site("resid", 1), Site("resid", 2))
    differences = contrast_differences(model, pairs, sites)
    data = TrainingActivations(torch.tensor([True, False]), torch.arange(2), {"resid": sites}, {}, differences)
    directions = caa.fit(data).directions(model, "test")

    def at(text, token, layer):
        seen = {}
        with torch.no_grad(), read_hooks(model, [("resid", layer)], lambda *a: seen.update(h=a[2])):
            model.network(torch.tensor([model.tokenizer(text).input_ids]), use_cache=False)
        return seen["h"][0, token]

    for direction, layer in zip(directions, (1, 2), strict=True):
        by_hand = [
            # Each byte is a token: "(A" and "(B" differ at their last, " yes" and " no" after their space.
            at("Is it so? (A", 11, layer) - at("Is it so? (B", 11, layer),
            at("Do you want to? yes", 16, layer) - at("Do you want to? no", 16, layer),
        ]
        torch.testing.assert_close(direction.vector, torch.stack(by_hand).mean(0), rtol=1e-4, atol=1e-5)
        assert direction.facts["gap"] == pytest.approx(float(direction.vector.norm()), rel=1e-5)
        assert (direction.site, direction.tokenizer) == (Site("resid", layer), tokenizer_fingerprint(model))
        assert (direction.origin, direction.position) == ("test/caa", "answer")


def test_tracing_vector_is_unit_difference_times_spread(tiny):
    x, y, _, axis = planted(n=2000, strength=4.0)
    (direction,) = tracing_vector.fit(of_stream(x[[1]], y)).directions(load_model(tiny("gpt2")), "test")
    unit = x[1][y].mean(0) - x[1][~y].mean(0)
    unit = unit / unit.norm()
    torch.testing.assert_close(direction.vector, unit * (x[1] @ unit).std(correction=1), rtol=1e-4, atol=1e-5)
    assert float(direction.unit().vector @ axis) > 0.99
    assert direction.scale == "std"
    assert direction.scaled("gap").vector.norm().item() == pytest.approx(4.0, rel=0.05)


def test_data_that_cannot_be_fitted_is_an_error_of_one_line(tiny):
    model = load_model(tiny("gpt2"))
    for make, words in (
        (lambda: iti.fit(of_heads(), ks=(9,)), "between 1 and 8"),
        (lambda: iti.fit(of_heads(), ks=()), "between 1 and 8"),
        (lambda: caa.fit(of_heads()), "needs contrast pairs"),
        (lambda: contrast_differences(model, [], [Site("resid", 1)]), "at least one pair"),
        (lambda: contrast_differences(model, [ContrastPair("a", " b", " b")], [Site("resid", 1)]), "the same tokens"),
    ):
        with pytest.raises(BadInput, match=words) as caught:
            make()
        assert "\n" not in str(caught.value)
    with pytest.raises(SingleClassError):
        of_stream(planted()[0], torch.ones(120, dtype=torch.bool))
