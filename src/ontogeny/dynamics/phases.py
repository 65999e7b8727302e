"""Fitting and compression phases of each layer, and the claim that dependence is bounded by the probe's accuracy."""

from typing import Any

import torch

from ontogeny.measurements.design import Design
from ontogeny.metrics.information import dependence_within_accuracy
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.change_points import TrainingPhases, fit_phases
from ontogeny.storage.run import Run, sql_text

_PHASE_KERNELS = ("gaussian_50", "gaussian_median")
"""The published width, nearly linear, and the median width."""


def change_point_rows(run: Run, design: Design, stage: str, seed: int) -> list[Record]:
    """Change point of each layer and kernel within one stage, and the verdict on the claim, from the stage's records."""
    inside = f"concept = {sql_text(design.concept.name)} and stage = {sql_text(stage)} and step is not null and control is null"
    curves = run.records(f"metric = 'nhsic_tx' and {inside} and method in ('gaussian_50', 'gaussian_median')")
    made = []
    for (kernel, site), group in curves.sort_values(["layer", "step"]).groupby(["method", "site"], sort=False):
        steps, points = (
            torch.tensor(group.step.tolist(), dtype=torch.float64),
            torch.tensor(group.value.tolist()).double(),
        )
        fit, n = fit_phases(steps, points, seed=seed), int(group.n.max())
        made.append(_row(fit, str(kernel), Site.parse(str(site)), stage, design, seed, n))
    return made + _dependence_claim_row(run, design, inside, stage, seed)


def _row(fit: TrainingPhases, kernel: str, site: Site, stage: str, design: Design, seed: int, n: int) -> Record:
    slopes = {"slope_before": f"{fit.slope_before:.6g}", "slope_after": f"{fit.slope_after:.6g}"}
    return design.row_context(seed, n=n, split=None).row(
        "change_point",
        fit.step,
        site,
        interval=(fit.low, fit.high),
        note=fit.reason or fit.verdict,
        stage=stage,
        method=kernel,
        coords={"of": "nhsic_tx", "verdict": fit.verdict, **slopes},
    )


def _dependence_claim_row(run: Run, design: Design, inside: str, stage: str, seed: int) -> list[Record]:
    """Share of cells whose dependence on the label is at most the probe's accuracy."""
    if design.concept.kind == "number":
        return []
    cells = run.query(
        f"""select d.method as kernel, d.value as dependence, a.value as accuracy
            from (select * from records where {inside} and metric = 'nhsic_ty') d
            join (select * from records where {inside} and metric = 'accuracy' and method = 'logistic') a
            using (step, site)"""
    )
    rows = []
    for kernel, group in cells.groupby("kernel"):
        within = dependence_within_accuracy(
            torch.tensor(group.dependence.tolist()), torch.tensor(group.accuracy.tolist())
        )
        about = design.row_context(seed, n=within.n, split=None)
        columns: dict[str, Any] = {"stage": stage, "method": str(kernel), "note": within.verdict}
        rows.append(about.row("dependence_within_accuracy", within.share, None, **columns))
    return rows
