"""The probes and vectors that a trace kept at each checkpoint, at one site of the stream, and their averages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint, one_fold_readout
from ontogeny.dynamics.summary import best_site
from ontogeny.errors import BadInput, unknown_name
from ontogeny.jobs.transfer.plan import TRANSFER_PROBES
from ontogeny.measurements.design import Design
from ontogeny.sites import Site
from ontogeny.storage.run import Run


@dataclass(frozen=True, eq=False)
class TransferSource:
    """Probes of one checkpoint, or the average of several."""

    probes: Mapping[str, Float[Tensor, " d"]]
    """Directions by method, as fitted."""
    biases: Mapping[str, float]
    std: float
    """Standard deviation of the projections on the mass-mean direction, at the source."""
    measured: MeasuredCheckpoint | None = None
    """None for an average."""
    cv_score: float = float("nan")
    coords: Mapping[str, str] | None = None
    """Row coordinates of an average."""

    @property
    def unit_direction(self) -> Float[Tensor, " d"]:
        """The mass-mean direction with norm 1; NaN if the class means coincide."""
        vector = self.probes["mass_mean"]
        return vector / vector.norm()

    @property
    def has_direction(self) -> bool:
        return bool(torch.isfinite(self.unit_direction).all())

    @property
    def row_coords(self) -> dict[str, str]:
        if self.measured is None:
            return dict(self.coords or {})
        return {"source_stage": self.measured.stage, "source_step": f"{self.measured.step}"}


def transfer_site(run: Run, last: MeasuredCheckpoint, name: str | None) -> tuple[Site, int]:
    """The site at which vectors are read and added, and its index among the sites of the run; by default the best site of `last`.

    Raises:
        BadInput: the run did not read the stream, or not this site.
    """
    sites = last.sites.get("resid", [])
    if not sites:
        raise BadInput(f"{run.folder} holds no site of the residual stream: trace it with `sites` resid.")
    site = Site.parse(name) if name else best_site(run, [last]).site
    if site not in sites:
        raise unknown_name("traced site", str(site), map(str, sites))
    return site, sites.index(site)


def read_sources(run: Run, design: Design, measured: Sequence[MeasuredCheckpoint], at: int) -> list[TransferSource]:
    """The source of each checkpoint, at the site with index `at`; not fitted on the test examples of `design.one_fold()`.

    Raises:
        BadInput: the run lacks a probe, or its checkpoints differ in width.
    """
    missing = [m for m in TRANSFER_PROBES if any(m not in entry.methods for entry in measured)]
    if missing:
        raise BadInput(
            f"{run.folder} lacks the probe {missing[0]} at some checkpoint: trace it with the probes {','.join(TRANSFER_PROBES)}."
        )
    sources = [_source(run, design, entry, at) for entry in measured]
    widths = {len(source.unit_direction) for source in sources}
    if len(widths) > 1:
        low, high = min(widths), max(widths)
        raise BadInput(
            f"all checkpoints must have one width, got {low} and {high}: select `steps` of one width, and transfer to the other model "
            "by `to_model`."
        )
    return sources


def _source(run: Run, design: Design, measured: MeasuredCheckpoint, at: int) -> TransferSource:
    facts = ["mass_mean/resid/facts/std", "logistic/resid/facts/cv_score"]
    tensors = run.directions(measured.unit, facts)
    std, cv_score = (float(tensors[name][at].flatten()[0]) for name in facts)
    readouts = {m: one_fold_readout(run, design, measured.unit, m, "resid", at) for m in TRANSFER_PROBES}
    directions = {m: direction for m, (direction, _) in readouts.items()}
    return TransferSource(directions, {m: bias for m, (_, bias) in readouts.items()}, std, measured, cv_score)


def average_sources(pool: Sequence[TransferSource], sizes: Sequence[int]) -> list[TransferSource]:
    """Means of the unit directions of k checkpoints: the last k, the k with the best `cv_score`, and k spaced evenly.

    Labels fix the sign of every direction; the norm of the mean measures their agreement.
    """
    known = [source for source in pool if source.has_direction]
    ranked = sorted(known, key=lambda s: (s.cv_score == s.cv_score, s.cv_score), reverse=True)
    averages = []
    for k in [size for size in sizes if size <= len(known)]:
        even = [known[round(i)] for i in torch.linspace(0, len(known) - 1, k).tolist()] if k > 1 else known[-1:]
        for rule, chosen in (("last", known[-k:]), ("best", ranked[:k]), ("even", even)):
            averages.append(_mean(chosen, {"average_of": str(k), "rule": rule}))
    return averages


def _mean(sources: Sequence[TransferSource], coords: Mapping[str, str]) -> TransferSource:
    probes = {m: torch.stack([s.probes[m] / s.probes[m].norm() for s in sources]).mean(0) for m in TRANSFER_PROBES}
    agreement = float(probes["mass_mean"].norm())
    std = sum(s.std for s in sources) / len(sources)
    biases = dict.fromkeys(TRANSFER_PROBES, float("nan"))
    return TransferSource(probes, biases, std, coords={**coords, "agreement": f"{agreement:.3f}"})
