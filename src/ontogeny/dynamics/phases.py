"""Fitting and compression phases of each layer, and the claim that dependence is bounded by the probe's accuracy."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ontogeny.measurements.design import Design
from ontogeny.metrics.information import dependence_within_accuracy
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.change_points import PhaseFit, TrainingPhases, familywise_phases, fit_bend
from ontogeny.storage.record_filter import sql_text
from ontogeny.storage.run import Run

if TYPE_CHECKING:
    import pandas as pd

_PHASE_KERNELS = ("gaussian_50", "gaussian_median")
"""The published width, nearly linear, and the median width."""
_WHOLE_LAYERS = "step is not null and control is null and head is null"
"""Dependence is measured in the residual stream. Most rows of a large run are of heads, which come last in a part and are skipped."""


def dependence_curves(run: Run, concepts: Iterable[str]) -> "pd.DataFrame":
    """The dependence on the input over the checkpoints, by concept, site and kernel."""
    where = f"concept in ({', '.join(map(sql_text, concepts))}) and {_WHOLE_LAYERS} and method in {_PHASE_KERNELS}"
    return run.query(
        f"select concept, stage, site, layer, method, step, value, n from records where metric = 'nhsic_tx' and {where}"
    )


def change_point_rows(curves: "pd.DataFrame", designs: Sequence[Design], seed: int) -> dict[str, list[Record]]:
    """Change point of each layer and kernel within each stage, by concept; all curves of the concepts are tested together.

    Args:
        curves: From `dependence_curves`.
    """
    stages = {str(stage): rows for stage, rows in curves.groupby("stage", sort=False, dropna=False)}
    fits = {stage: _stage_fits(rows, seed) for stage, rows in stages.items()}
    families = sum(any(_testable(kernels) for kernels in of.values()) for of in fits.values())
    rows: dict[str, list[Record]] = {design.concept.name: [] for design in designs}
    by_name = {design.concept.name: design for design in designs}
    for stage, of in fits.items():
        decided = familywise_phases(
            [[fit for fit, _ in kernels.values()] for kernels in of.values()], families=families
        )
        for ((name, site), kernels), phases in zip(of.items(), decided, strict=True):
            for (kernel, (_, n)), of_kernel in zip(kernels.items(), phases, strict=True):
                rows[name].append(_row(of_kernel, kernel, Site.parse(site), stage, by_name[name], seed, n))
    return rows


_SiteFits = dict[str, tuple[PhaseFit, int]]
"""By kernel, with the number of examples."""


def _testable(kernels: _SiteFits) -> bool:
    return all(fit.explained is not None for fit, _ in kernels.values())


def _stage_fits(curves: "pd.DataFrame", seed: int) -> dict[tuple[str, str], _SiteFits]:
    """The fits of one stage by concept and site."""
    fits: dict[tuple[str, str], _SiteFits] = {}
    ordered = curves.sort_values(["layer", "step"], kind="stable")
    groups = ordered.groupby(["concept", "site", "method"], sort=False)
    # One table for all curves: a small tensor kept after each large fit would leave holes in memory that nothing fills.
    table: Tensor | None = None
    for place, ((concept, site, kernel), group) in enumerate(groups):
        steps = torch.tensor(group.step.tolist(), dtype=torch.float64)
        fit = fit_bend(steps, torch.tensor(group.value.tolist()).double(), seed=seed)
        if fit.explained is not None:
            table = fit.explained.new_empty(len(groups), len(fit.explained)) if table is None else table
            if len(fit.explained) == table.shape[1]:
                table[place] = fit.explained
                fit = replace(fit, explained=table[place])
        fits.setdefault((str(concept), str(site)), {})[str(kernel)] = fit, int(group.n.max())
    return fits


def _row(fit: TrainingPhases, kernel: str, site: Site, stage: str, design: Design, seed: int, n: int) -> Record:
    slopes = {"slope_before": f"{fit.slope_before:.6g}", "slope_after": f"{fit.slope_after:.6g}"}
    corrected = {} if math.isnan(fit.p) else {"p_corrected": f"{fit.p:.4g}"}
    return design.row_context(seed, n=n, split=None).row(
        "change_point",
        fit.step,
        site,
        interval=(fit.low, fit.high),
        note=fit.reason or fit.verdict,
        stage=stage,
        method=kernel,
        coords={"of": "nhsic_tx", "verdict": fit.verdict, **slopes, **corrected},
    )


def dependence_claim_rows(run: Run, designs: Sequence[Design], seed: int) -> dict[str, list[Record]]:
    """Share of the cells of each stage whose dependence on the label is at most the probe's accuracy, by concept."""
    rows: dict[str, list[Record]] = {design.concept.name: [] for design in designs}
    by_name = {design.concept.name: design for design in designs if design.concept.kind != "number"}
    if not by_name:
        return rows
    where = f"concept in ({', '.join(map(sql_text, by_name))}) and {_WHOLE_LAYERS}"
    cells = run.query(
        f"""select concept, stage, d.method as kernel, d.value as dependence, a.value as accuracy
            from (select * from records where {where} and metric = 'nhsic_ty') d
            join (select * from records where {where} and metric = 'accuracy' and method = 'logistic') a
            using (concept, stage, step, site)"""
    )
    for (name, stage, kernel), group in cells.groupby(["concept", "stage", "kernel"]):
        within = dependence_within_accuracy(
            torch.tensor(group.dependence.tolist()), torch.tensor(group.accuracy.tolist())
        )
        about = by_name[str(name)].row_context(seed, n=within.n, split=None)
        columns: dict[str, Any] = {"stage": str(stage), "method": str(kernel), "note": within.verdict}
        rows[str(name)].append(about.row("dependence_within_accuracy", within.share, None, **columns))
    return rows
