"""Records of sparse autoencoders: their scores, and how their latents match those of others."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ontogeny.records import Record, make_record
from ontogeny.sae.evaluation import SaeScores
from ontogeny.sae.matching import LatentMatch
from ontogeny.sae.settings import SaeSettings
from ontogeny.sites import Site


def member_coords(member: SaeSettings) -> dict[str, str]:
    """Settings in which the autoencoders of a pass differ, beside the activation and the seed."""
    sparsity = f"k {member.k}" if member.activation == "topk" else f"penalty {member.penalty_weight:g}"
    return {"latents": str(member.latents), "sparsity": sparsity}


def autoencoder_rows(
    members: Sequence[SaeSettings], scores: Sequence[SaeScores], site: Site, *, control: str | None = None
) -> Iterator[Record]:
    """A row for each score of each autoencoder."""
    for member, score in zip(members, scores, strict=True):
        columns: dict[str, Any] = {
            "site": site, "method": member.activation, "seed": member.seed, "split": "test", "control": control,
            "coords": member_coords(member),
        }  # fmt: skip
        for name, (value, low, high) in score.values.items():
            reason = "zeros in place of the activation do not raise the loss"
            yield make_record(f"sae_{name}", value, n=score.tokens, interval=(low, high), reason=reason, **columns)
        yield make_record("sae_dead", score.dead, n=member.latents, **columns)


def match_row(
    metric: str, member: SaeSettings, match: LatentMatch, site: Site, *, control: str | None = None, **coords: str
) -> Record:
    """Share of an autoencoder's latents that have a match in another one; the coordinate `correlation` is the median over the matched."""
    if bool(match.matched.any()):
        coords["correlation"] = f"{float(match.correlation[match.matched].median()):.3f}"
    return make_record(
        metric,
        match.share,
        n=int(match.compared.sum()),
        site=site,
        method=member.activation,
        seed=member.seed,
        control=control,
        coords=member_coords(member) | coords,
        reason="no latent fires often enough to be compared",
    )


def birth_row(member: SaeSettings, births: Mapping[int, int], final: LatentMatch, site: Site, place: int) -> Record:
    """Number of latents of the last autoencoder that are matched without a gap from a checkpoint on."""
    count = int(final.compared.sum())
    return make_record(
        "sae_births",
        births.get(place, 0) if count else math.nan,
        n=count,
        site=site,
        method=member.activation,
        seed=member.seed,
        coords=member_coords(member),
        reason="no latent fires often enough to be compared",
    )
