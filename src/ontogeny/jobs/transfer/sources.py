"""The vectors and probes that a trace left behind at each checkpoint, at one site of the stream: what is carried over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint
from ontogeny.dynamics.summary import best_site
from ontogeny.errors import BadInput, unknown_name
from ontogeny.jobs.transfer.plan import TRANSFER_PROBES
from ontogeny.sites import Site
from ontogeny.storage.run import Run


@dataclass(frozen=True, eq=False)
class TransferSource:
    """What one checkpoint, or an average of several, gives away."""

    probes: Mapping[str, Float[Tensor, " d"]]
    """Directions by method, as long as their fit made them."""
    biases: Mapping[str, float]
    std: float
    """Spread of the projections on the mass-mean direction, at the source."""
    visit: MeasuredCheckpoint | None = None
    """None for an average."""
    cv_score: float = float("nan")
    coords: Mapping[str, str] | None = None
    """Of an average: what it is of."""

    @property
    def unit(self) -> Float[Tensor, " d"]:
        """The mass-mean direction with length 1; NaN where the class means coincide."""
        vector = self.probes["mass_mean"]
        return vector / vector.norm()

    @property
    def known(self) -> bool:
        return bool(torch.isfinite(self.unit).all())

    @property
    def told(self) -> dict[str, str]:
        """Its coordinates in a row."""
        if self.visit is None:
            return dict(self.coords or {})
        return {"source_stage": self.visit.stage, "source_step": f"{self.visit.step}"}


def transfer_site(run: Run, last: MeasuredCheckpoint, wanted: str | None) -> tuple[Site, int]:
    """Where vectors are read and put, and its place among the sites of the run: the best site of the last checkpoint unless told.

    Raises:
        BadInput: the run did not read the stream, or not there.
    """
    held = last.sites.get("resid", [])
    if not held:
        raise BadInput(
            f"{run.folder} was not traced in the stream, where vectors are moved. Trace it with --sites resid."
        )
    site = Site.parse(wanted) if wanted else best_site(run, [last]).site
    if site not in held:
        raise unknown_name("traced site", str(site), map(str, held))
    return site, held.index(site)


def read_sources(run: Run, visits: Sequence[MeasuredCheckpoint], at: int) -> list[TransferSource]:
    """One a visit.

    Raises:
        BadInput: the run lacks a method, or its checkpoints have two widths.
    """
    missing = [m for m in TRANSFER_PROBES if any(m not in visit.methods for visit in visits)]
    if missing:
        raise BadInput(
            f"{run.folder} holds no {missing[0]} of every checkpoint. Trace with --fits {','.join(TRANSFER_PROBES)}."
        )
    found = [_source(run, visit, at) for visit in visits]
    widths = {len(source.unit) for source in found}
    if len(widths) > 1:
        low, high = min(widths), max(widths)
        raise BadInput(
            f"the checkpoints are {low} and {high} wide: no vector fits both. Select one width with --steps, or use --onto."
        )
    return found


def _source(run: Run, visit: MeasuredCheckpoint, at: int) -> TransferSource:
    names = [f"{m}/resid/{what}" for m in TRANSFER_PROBES for what in ("direction", "bias")]
    facts = ["mass_mean/resid/facts/std", "logistic/resid/facts/cv_score"]
    kept = run.directions(visit.unit, [*names, *facts])
    return TransferSource(
        {m: kept[f"{m}/resid/direction"][at, :, 0].float() for m in TRANSFER_PROBES},
        {m: float(kept[f"{m}/resid/bias"][at, 0]) for m in TRANSFER_PROBES},
        float(kept[facts[0]][at].flatten()[0]),
        visit,
        float(kept[facts[1]][at].flatten()[0]),
    )


def average_sources(pool: Sequence[TransferSource], sizes: Sequence[int]) -> list[TransferSource]:
    """Means of the unit directions of k checkpoints: the last k, the k of the best `cv_score` on their training groups, k spread evenly.

    Labels give every direction its sign, so none is turned; the length of the mean says how much they agree.
    """
    known = [source for source in pool if source.known]
    ranked = sorted(known, key=lambda s: (s.cv_score == s.cv_score, s.cv_score), reverse=True)
    made = []
    for k in [size for size in sizes if size <= len(known)]:
        even = [known[round(i)] for i in torch.linspace(0, len(known) - 1, k).tolist()] if k > 1 else known[-1:]
        for rule, chosen in (("last", known[-k:]), ("best", ranked[:k]), ("even", even)):
            made.append(_mean(chosen, {"average_of": str(k), "rule": rule}))
    return made


def _mean(chosen: Sequence[TransferSource], coords: Mapping[str, str]) -> TransferSource:
    probes = {m: torch.stack([s.probes[m] / s.probes[m].norm() for s in chosen]).mean(0) for m in TRANSFER_PROBES}
    agreement = float(probes["mass_mean"].norm())
    std = sum(s.std for s in chosen) / len(chosen)
    told = {**coords, "agreement": f"{agreement:.3f}"}
    return TransferSource(probes, dict.fromkeys(TRANSFER_PROBES, float("nan")), std, coords=told)
