"""Latents against ground truth: correlation with a known feature of each token, and the effect of clamping, beside the mean difference."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.direction import random_unit_vector
from ontogeny.models.hooks import write_hooks
from ontogeny.models.model import Model
from ontogeny.sae.autoencoder import SparseAutoencoder, token_factor
from ontogeny.sae.chunks import TokenRows, padded_passes, read_site_tokens
from ontogeny.sae.evaluation import counted_mask, edit_counted
from ontogeny.sae.interventions import ClampLatent
from ontogeny.sites import Site

_Edit = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class LabelledTokens:
    """Token rows with the ground truth of each counted token."""

    rows: TokenRows
    features: Mapping[str, Float[Tensor, " counted"]]
    """Ground truth of each token; NaN where it has none. Classes are 0 and 1, one feature each."""
    allowed: Bool[Tensor, "counted vocab"] | None
    """Tokens that may follow; None for a language without a rule for single tokens."""

    def first(self, count: int) -> "LabelledTokens":
        """The first strings."""
        rows = self.rows.of(range(min(count, len(self.rows))))
        words = rows.tokens
        features = {name: values[:words] for name, values in self.features.items()}
        return LabelledTokens(rows, features, None if self.allowed is None else self.allowed[:words])


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


@dataclass(frozen=True, eq=False)
class NaturalEffect:
    """A feature of a language model: how the next token's category differs with it, and the activations that go with it."""

    model: Model
    tokens: LabelledTokens
    site: Site
    x: Float[Tensor, "counted d"]
    """Activations of the words."""
    feature: Float[Tensor, " counted"]
    categories: Int[Tensor, " vocab"]
    contrast: Float[Tensor, " category"]
    step: Float[Tensor, " d"]
    """Mean activation of words with much of the feature minus that of words with little."""
    r: float
    """Correlation of the projection on `step` with the feature, on strings that did not give it."""

    @classmethod
    def of(
        cls, model: Model, tokens: LabelledTokens, site: Site, feature: Float[Tensor, " counted"], categories: Tensor
    ) -> "NaturalEffect":
        x, owner = read_site_tokens(model, tokens.rows, site), tokens.rows.owner
        contrast, much, little = natural_contrast(category_mass(next_token_shares(model, tokens), categories), feature)
        even = owner % 2 == 0
        half = x[much & even].mean(0) - x[little & even].mean(0)
        r = float(correlations((x[~even] @ half)[:, None], feature[~even])[0])
        return cls(model, tokens, site, x, feature, categories, contrast, x[much].mean(0) - x[little].mean(0), r)

    def share(self, high: _Edit, low: _Edit) -> float:
        """Share of the natural contrast that lies between two edits: 1 is what a cause would give; negative values go the other way."""
        both = [
            category_mass(next_token_shares(self.model, self.tokens, self.site, edit), self.categories).mean(0)
            for edit in (high, low)
        ]
        return float(((both[0] - both[1]) * self.contrast).sum() / self.contrast.square().sum().clamp(min=1e-9))

    def share_of_step(self, step: Float[Tensor, " d"]) -> float:
        """Share that a step makes, half of it to either side of each activation."""
        return self.share(lambda h: h + step / 2, lambda h: h - step / 2)


@dataclass(frozen=True)
class LatentEffect:
    """A latent's correlation with the feature and the effect of clamping it, beside those of the mean difference."""

    r: float
    """|r| with the feature, on the strings that did not choose the latent."""
    share: float
    """Share of the natural contrast that is made by clamping it from 0 up, as far as the mean difference, in the direction of its r."""
    shortfall: float
    """Effect that the correlation predicts, by the ratio of both for the mean difference, minus `share`."""


_FEWEST_FIRINGS = 10
_LEAST_R = 0.05
"""Correlation of the mean difference below which it predicts no effect."""


@dataclass(frozen=True, eq=False)
class ClampedLatents:
    """The best latent of an autoencoder, and latents that fire as often and are clamped as far."""

    best: LatentEffect
    matched: tuple[LatentEffect, ...]
    """Two halves of them, the second of which stands in for the best latent in the null run; empty if too few latents fire."""
    frequency: float
    """Mean firing rate of the matched latents over that of the best one."""
    random: float
    """Share made by an equal step in a random direction."""
    reach: float
    """How far the best latent moves an activation by itself, at the 95 % quantile of its values, over the length of the clamp."""


def clamped_latents(
    natural: NaturalEffect,
    ceiling: float,
    autoencoder: SparseAutoencoder,
    best: BestLatent,
    seed: int,
    *,
    pairs: int = 2,
) -> ClampedLatents:
    """Clamp the best latent and `2 * pairs` others whose firing rates are nearest to its own, all as far as the mean difference is long.

    Args:
        ceiling: Share of the natural contrast that the mean difference makes.
    """
    latents = autoencoder.encode(natural.x)
    fires = (latents > 0).sum(0)
    own = latents[:, best.latent]
    top = float(own[own > 0].quantile(0.95)) if bool((own > 0).any()) else 0.0
    scale = float(token_factor(natural.x).mean()) if autoencoder.token_scale else 1.0
    lengths = autoencoder.decoder.norm(dim=1) / scale
    length = float(natural.step.norm())
    random = length * random_unit_vector(autoencoder.width, seed).to(natural.x)
    odd = natural.tokens.rows.owner % 2 == 1
    r = correlations(latents[odd], natural.feature[odd])

    def clamps(latent: int) -> tuple[ClampLatent, ClampLatent]:
        value = length / max(float(lengths[latent]), 1e-9)
        return ClampLatent(autoencoder, latent, value), ClampLatent(autoencoder, latent, 0.0)

    def effect(latent: int, correlation: float) -> LatentEffect:
        share = natural.share(*clamps(latent)) * (1.0 if correlation >= 0 else -1.0)
        predicted = ceiling * abs(correlation) / abs(natural.r) if abs(natural.r) >= _LEAST_R else float("nan")
        return LatentEffect(abs(correlation), share, predicted - share)

    apart = (fires.float().clamp(min=1).log() - fires[best.latent].float().clamp(min=1).log()).abs()
    apart[(fires < _FEWEST_FIRINGS) | (lengths < 1e-6)] = torch.inf
    apart[best.latent] = torch.inf
    nearest = apart.argsort()[: 2 * pairs]
    enough = len(nearest) == 2 * pairs and bool(apart[nearest].isfinite().all())
    # Shuffled, so that neither half is nearer to the best latent.
    order = torch.randperm(len(nearest), generator=torch.Generator().manual_seed(seed))
    chosen = nearest[order].tolist() if enough else []
    return ClampedLatents(
        effect(best.latent, best.r),
        tuple(effect(latent, float(r[latent])) for latent in chosen),
        float(fires[chosen].float().mean() / fires[best.latent].clamp(min=1)) if chosen else float("nan"),
        natural.share_of_step(random),
        top * float(lengths[best.latent]) / max(length, 1e-9),
    )


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
