"""Measurements of an autoencoder against the ground truth: correlation of its latents, and the effect of clamping them."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.models.hooks import write_hooks
from ontogeny.models.model import Model
from ontogeny.sae import ClampLatent, SparseAutoencoder
from ontogeny.sae.chunks import padded_passes
from ontogeny.sae.evaluation import counted_mask, edit_counted
from ontogeny.sites import Site
from ontogeny.studies.sparse_autoencoders._language import LabelledTokens

_Edit = Callable[[Tensor], Tensor]


@torch.no_grad()
def next_token_shares(
    model: Model, tokens: LabelledTokens, site: Site | None = None, edit: _Edit | None = None
) -> Float[Tensor, "counted vocab"]:
    """Distribution of the next token at each word, with the activations of the words replaced in place."""
    parts: list[Tensor] = [torch.empty(0)] * len(tokens.rows)
    for texts, ids in padded_passes(model, tokens.rows):
        counted = counted_mask(tokens.rows, texts, ids.shape[1])
        with contextlib.ExitStack() as hooks:
            if site is not None and edit is not None:
                hooks.enter_context(write_hooks(model, site, edit_counted(counted, edit)))
            shares = model.network(input_ids=ids, use_cache=False).logits.softmax(-1)
        for row, text in enumerate(texts):
            parts[text] = shares[row][counted[row]]
    return torch.cat(parts)


def grammatical_mass(shares: Float[Tensor, "counted vocab"], tokens: LabelledTokens) -> float:
    """Mean probability of the tokens that may follow; NaN for a language without such a rule."""
    return float("nan") if tokens.allowed is None else float((shares * tokens.allowed).sum(1).mean())


def correlations(
    latents: Float[Tensor, "counted latent"], feature: Float[Tensor, " counted"]
) -> Float[Tensor, " latent"]:
    """Pearson's r of each latent with a feature, where it has a value; 0 for a latent that does not vary."""
    known = ~feature.isnan()
    z, y = latents[known].double(), feature[known].double()
    z, y = z - z.mean(0), y - y.mean()
    return (z * y[:, None]).sum(0) / (z.norm(dim=0) * y.norm()).clamp(min=1e-12)


@dataclass(frozen=True)
class BestLatent:
    """The latent with the largest |r| on one half of the strings, and its r on the other half."""

    latent: int
    r: float
    permuted_r: float
    """Largest |r| of a latent chosen and read with the features of other words."""


def best_latent(
    latents: Float[Tensor, "counted latent"], feature: Float[Tensor, " counted"], owner: Int[Tensor, " counted"]
) -> BestLatent:
    """The best latent of a feature; strings with even numbers choose it, the others give its r."""
    even = owner % 2 == 0

    def chosen(values: Tensor) -> tuple[int, float]:
        latent = int(correlations(latents[even], values[even]).abs().argmax())
        return latent, float(correlations(latents[~even], values[~even])[latent])

    latent, r = chosen(feature)
    return BestLatent(latent, r, abs(chosen(feature.roll(len(feature) // 3))[1]))


def category_mass(
    shares: Float[Tensor, "counted vocab"], categories: Int[Tensor, " vocab"]
) -> Float[Tensor, "counted category"]:
    """Probability of each category of tokens."""
    mass = shares.new_zeros(len(shares), int(categories.max()) + 1)
    return mass.index_add(1, categories, shares)


def natural_contrast(
    mass: Float[Tensor, "counted category"], feature: Float[Tensor, " counted"]
) -> tuple[Float[Tensor, " category"], Tensor, Tensor]:
    """Mean categories after words with much of a feature minus after words with little; and which words these are."""
    known = ~feature.isnan()
    low, high = feature[known].quantile(0.33), feature[known].quantile(0.67)
    little, much = known & (feature <= low), known & (feature >= (high if high > low else low + 1e-9))
    return mass[much].mean(0) - mass[little].mean(0), much, little


def effect_shares(
    model: Model,
    tokens: LabelledTokens,
    site: Site,
    x: Float[Tensor, "counted d"],
    autoencoder: SparseAutoencoder,
    best: BestLatent,
    feature: Float[Tensor, " counted"],
    categories: Int[Tensor, " vocab"],
    seed: int,
) -> Mapping[str | None, float]:
    """Share of the natural contrast of a feature that is made by clamping its latent from 0 to its largest value.

    1 is what a cause would give, 0 no effect; negative values go the other way. Beside it, as controls: an equal step in a random
    direction, and the step between the mean activations of words with little and much of the feature.
    """
    clean = category_mass(next_token_shares(model, tokens), categories)
    contrast, much, little = natural_contrast(clean, feature)
    size = contrast.square().sum().clamp(min=1e-9)
    latents = autoencoder.encode(x)[:, best.latent]
    top = float(latents[latents > 0].quantile(0.95)) if bool((latents > 0).any()) else 0.0
    sign = 1.0 if best.r >= 0 else -1.0

    def share(high: _Edit, low: _Edit) -> float:
        both = [category_mass(next_token_shares(model, tokens, site, edit), categories).mean(0) for edit in (high, low)]
        return float(((both[0] - both[1]) * contrast).sum() / size)

    clamps = [ClampLatent(autoencoder, best.latent, value) for value in (top, 0.0)]
    step = (x[much].mean(0) - x[little].mean(0)) / 2
    return {
        None: sign * share(*clamps),
        "random_direction": sign * share(clamps[0].null(seed), clamps[1].null(seed + 1)),
        "mean_difference": share(lambda h: h + step, lambda h: h - step),
    }


def clamp_curve(
    model: Model,
    tokens: LabelledTokens,
    site: Site,
    autoencoder: SparseAutoencoder,
    latent: int,
    top: float,
    factors: tuple[int, ...],
) -> dict[int, float]:
    """Grammatical mass where a latent is clamped to multiples of its largest value."""
    return {
        factor: grammatical_mass(
            next_token_shares(model, tokens, site, ClampLatent(autoencoder, latent, factor * top)), tokens
        )
        for factor in factors
    }
