"""Clamped latents: partners fire as often, every clamp is as long, and the mean difference itself has no shortfall."""

from types import SimpleNamespace

import pytest
import torch

from ontogeny.sae import SparseAutoencoder
from ontogeny.sae.latent_effects import BestLatent, clamped_latents, natural_contrast

D, LATENTS, WORDS = 12, 12, 4000


def autoencoder(rates: torch.Tensor) -> SparseAutoencoder:
    """Latent i fires where coordinate i of a Gaussian activation is large enough for its rate; directions are of several lengths."""
    lengths = torch.linspace(0.5, 3, LATENTS)
    bias = -torch.distributions.Normal(0.0, 1.0).icdf(1 - rates)
    return SparseAutoencoder("relu", torch.eye(D), bias, torch.diag(lengths), torch.zeros(D), centre_input=False)


def natural(x: torch.Tensor, feature: torch.Tensor, toward: torch.Tensor) -> SimpleNamespace:
    """A linear language model: the effect of a step is its part along a direction."""

    def share(high, low) -> float:
        return float(((high(x) - low(x)) @ toward).mean())

    return SimpleNamespace(
        x=x,
        feature=feature,
        tokens=SimpleNamespace(rows=SimpleNamespace(owner=torch.arange(WORDS))),
        step=2 * toward,
        r=0.9,
        share=share,
        share_of_step=lambda step: share(lambda h: h + step / 2, lambda h: h - step / 2),
    )


def test_partners_fire_as_often_and_are_clamped_as_far() -> None:
    x = torch.randn(WORDS, D, generator=torch.Generator().manual_seed(0))
    rates = torch.tensor([0.3, 0.02, 0.28, 0.9, 0.32, 0.05, 0.33, 0.6, 0.27, 0.01, 0.8, 0.1])
    feature = (x[:, 0] > 0.5).double()
    length_only = natural(x, feature, torch.full((D,), 1.0))
    clamped = clamped_latents(length_only, 1.0, autoencoder(rates), BestLatent(0, 0.8, 0.0), 0)
    assert clamped.frequency == pytest.approx(1, abs=0.1)
    # With equal weight on all coordinates each clamp of a coordinate has an effect of its length.
    shares = [abs(one.share) for one in clamped.matched]
    assert shares == pytest.approx([clamped.best.share] * 4, rel=1e-4)
    few = autoencoder(torch.where(torch.arange(LATENTS) < 3, rates, 1e-9))
    assert clamped_latents(length_only, 1.0, few, BestLatent(0, 0.8, 0.0), 0).matched == ()


def test_a_latent_along_the_mean_difference_has_no_shortfall_and_one_beside_it_has() -> None:
    x = torch.randn(WORDS, D, generator=torch.Generator().manual_seed(0))
    toward = torch.nn.functional.one_hot(torch.tensor(0), D).float()
    own = natural(x, (x[:, 0] > 0.5).double(), toward)
    along, beside = (
        clamped_latents(own, 2.0, autoencoder(torch.full((LATENTS,), 0.3)), BestLatent(latent, 0.9, 0.0), 0)
        for latent in (0, 5)
    )
    assert along.best.shortfall == pytest.approx(0, abs=1e-4)
    assert beside.best.shortfall == pytest.approx(2, abs=1e-4)
    assert all(abs(one.share) < 1e-4 for one in along.matched)


def test_contrast_of_a_rare_class_is_between_those_with_it_and_those_without() -> None:
    mass, feature = torch.eye(2)[torch.tensor([0, 0, 0, 1])], torch.tensor([0.0, 0.0, 0.0, 1.0])
    contrast, much, little = natural_contrast(mass, feature)
    assert contrast.tolist() == [-1, 1]
    assert (much.sum(), little.sum()) == (1, 3)
