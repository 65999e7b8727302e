"""Match the latents of two autoencoders: by correlation of their activations on shared texts, and by the cosine of their directions.

A match is mutual: each is the other's best. Its correlation exceeds what permuted texts give, corrected for the number of latents by the
maximum statistic (Westfall & Young 1993).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.linalg.matmul import matmul

FEWEST_FIRINGS = 10
"""Tokens at which a latent must fire to be compared; rarer ones coincide by chance."""
PERMUTATIONS = 99


@dataclass(frozen=True, eq=False)
class LatentMatch:
    """The best partner of each latent of the first autoencoder."""

    partner: Int[Tensor, " latent"]
    """Latent of the second autoencoder with the largest correlation."""
    correlation: Float[Tensor, " latent"]
    cosine: Float[Tensor, " latent"]
    """Of the two directions; NaN if the bases differ."""
    p: Float[Tensor, " latent"]
    """Corrected for the number of latents; NaN for one that fires too rarely."""
    matched: Bool[Tensor, " latent"]
    compared: Bool[Tensor, " latent"]
    """Whether a latent fires often enough."""
    null_correlation: float
    """Median over latents of the mean of the best correlation with permuted texts."""
    null_cosine: float
    """95 % quantile of the cosines of partners dealt at random."""

    @property
    def share(self) -> float:
        """Share of the compared latents with a match; NaN if none is compared."""
        count = int(self.compared.sum())
        return int(self.matched.sum()) / count if count else float("nan")


def match_latents(
    one: Float[Tensor, "token latent"],
    other: Float[Tensor, "token latent2"],
    owner: Int[Tensor, " token"],
    directions: tuple[Float[Tensor, "latent d"], Float[Tensor, "latent2 d"]] | None = None,
    *,
    level: float = 0.05,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> LatentMatch:
    """Match the latents of two autoencoders on the same tokens.

    The null puts the texts of the second one in another order, from a random token on: each latent keeps its own course inside a text.

    Args:
        one: Latents of the first autoencoder.
        other: Latents of the second one at the same tokens.
        owner: The text of each token, ascending.
        directions: Decoders in one basis (checkpoints or seeds of autoencoders of one network); then the cosine must also exceed that of
            partners dealt at random. None for networks with bases of their own.

    Raises:
        BadInput: different tokens, or fewer than four texts.
    """
    if len(one) != len(other) or len(one) != len(owner):
        raise BadInput(
            f"latents must be those of the same tokens to be matched, got {len(one)}, {len(other)} and {len(owner)}: read the same texts."
        )
    texts = [part.tolist() for part in torch.split(torch.arange(len(owner)), _lengths(owner))]
    if len(texts) < 4:
        raise BadInput(f"`owner` must name at least 4 texts to permute, got {len(texts)}: give more texts.")
    mine, theirs = _standardised(one), _standardised(other)
    compared = (one > 0).sum(0).cpu() >= FEWEST_FIRINGS
    able = (other > 0).sum(0).cpu() >= FEWEST_FIRINGS
    observed = _correlations(mine, theirs, able)
    best, partner = observed.max(1)
    mutual = observed.where(compared[:, None], -2.0).argmax(0)[partner] == torch.arange(len(best))
    draws = torch.stack(
        [_correlations(mine, theirs[_permuted(texts, seed, i)], able).amax(1) for i in range(permutations)]
    )
    p = _corrected(best, draws, compared)
    matched = compared & able[partner] & mutual & (p <= level)
    cosine, null_cosine = torch.full_like(best, torch.nan), float("nan")
    if directions is not None:
        cosine, null_cosine = _cosines(*directions, partner, compared, seed)
        matched &= cosine > null_cosine
    null = float(draws.mean(0)[compared].median()) if bool(compared.any()) else float("nan")
    return LatentMatch(partner, best, cosine, p, matched, compared, null, null_cosine)


def latent_births(
    matches: Sequence[LatentMatch],
) -> tuple[Int[Tensor, " latent"], Float[Tensor, " checkpoint"]]:
    """When each latent of the last autoencoder is born, and the share of its latents that stand at each earlier one.

    Args:
        matches: Of the last autoencoder with each earlier one, in order of time; of autoencoders of one basis or not.

    Returns:
        The first of the earlier ones from which a latent is matched without a gap (their number if there is none), and the share matched at
        each.
    """
    found = torch.stack([match.matched for match in matches])
    unbroken = found.flip(0).long().cumprod(0).sum(0)
    share = torch.tensor([match.share for match in matches], dtype=torch.float32)
    return len(matches) - unbroken, share


def _lengths(owner: Int[Tensor, " token"]) -> list[int]:
    counts: list[int] = owner.unique_consecutive(return_counts=True)[1].tolist()
    return counts


def _standardised(latents: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
    """Columns of mean 0 and length 1; zeros for a latent that does not vary."""
    centred = latents.float() - latents.float().mean(0)
    return centred / centred.norm(dim=0).clamp(min=1e-12)


def _correlations(
    mine: Float[Tensor, "token latent"], theirs: Float[Tensor, "token latent2"], able: Bool[Tensor, " latent2"]
) -> Float[Tensor, "latent latent2"]:
    """Pearson's r of all pairs; −1 with a partner that fires too rarely."""
    return matmul(mine.mT, theirs).cpu().where(able, -1.0)


def _permuted(texts: Sequence[Sequence[int]], seed: int, draw: int) -> Int[Tensor, " token"]:
    generator = torch.Generator().manual_seed(1_000_003 * seed + draw)
    order = torch.randperm(len(texts), generator=generator).tolist()
    tokens = torch.tensor([token for text in order for token in texts[text]])
    return tokens.roll(int(torch.randint(len(tokens), (1,), generator=generator)))


def _corrected(
    best: Float[Tensor, " latent"], draws: Float[Tensor, "draw latent"], compared: Bool[Tensor, " latent"]
) -> Float[Tensor, " latent"]:
    """p of each latent by the maximum over latents, each in units of its own null, since rare latents have a wider one."""
    p = torch.full_like(best, torch.nan)
    if not bool(compared.any()):
        return p
    # The observed order of the texts is one of the draws, so that all are treated alike.
    whole = torch.cat([best[None], draws])
    mean, spread = whole.mean(0), whole.std(0).clamp(min=1e-6)
    largest = ((draws - mean) / spread)[:, compared].amax(1)
    score = (best - mean) / spread
    reached = (largest[:, None] >= score[compared]).sum(0)
    p[compared] = (1.0 + reached) / (1.0 + len(draws))
    return p


def _cosines(
    mine: Float[Tensor, "latent d"],
    theirs: Float[Tensor, "latent2 d"],
    partner: Int[Tensor, " latent"],
    compared: Bool[Tensor, " latent"],
    seed: int,
) -> tuple[Float[Tensor, " latent"], float]:
    """Cosine with the partner, and the 95 % quantile of cosines with partners of other latents."""
    one = torch.nn.functional.normalize(mine.float().cpu(), dim=1)
    two = torch.nn.functional.normalize(theirs.float().cpu(), dim=1)[partner]
    inside = compared.nonzero()[:, 0]
    if len(inside) < 2:
        return (one * two).sum(1), 1.0
    generator = torch.Generator().manual_seed(seed)
    shuffled = inside[torch.randperm(len(inside), generator=generator)]
    other = partner[inside] != partner[shuffled]
    dealt = (one[inside] * two[shuffled]).sum(1)[other]
    return (one * two).sum(1), float(dealt.quantile(0.95)) if len(dealt) else 1.0
