"""Results that need all targets of a transfer: accuracies with each model's own centring, and q-values over the whole matrix."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.jobs.transfer.plan import TRANSFER_PROBES, TRANSFER_VERSION
from ontogeny.measurements.design import Design
from ontogeny.measurements.rows import CheckpointStamp, RowContext
from ontogeny.measurements.scores import held_out_scores
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.fdr import q_values
from ontogeny.storage.files import content_digest, read_tensor_header
from ontogeny.storage.run import Run

_OWN_MEAN_NOTE = "each model centred by the mean of its own training texts, without labels (arXiv:2504.02904)"


def summarise_transfer(run: Run, plan: TracePlan, design: Design, site: Site) -> str:
    """Write the summary rows of one concept over all of its units, in place of an earlier summary; returns the unit."""
    name = design.concept.name
    units = _unit_headers(run, name)
    prefix = f"transfers-{content_digest(name)}"
    unit = f"{prefix}-{content_digest(sorted(units))}"
    about = RowContext(name, str(design.concept.position), len(design.split.test), plan.settings.seed)
    records = [*_accuracy_rows(run, design, about, site, units), *_q_value_rows(run, about, site, units)]
    run.keep(unit, CheckpointStamp(plan.lineage.name, unit).sign(records))
    run.forget(prefix, but=unit)
    return unit


def _unit_headers(run: Run, concept: str) -> dict[str, dict[str, Any]]:
    headers = {
        path.stem: read_tensor_header(path) for path in sorted((run.folder / "scores").glob("transfer-*.safetensors"))
    }
    # Units of another version do not belong to this family of tests.
    current = {unit: header for unit, header in headers.items() if header.get("version") == TRANSFER_VERSION}
    return {unit: header for unit, header in current.items() if header["concept"] == concept and run.done(unit)}


def _accuracy_rows(
    run: Run, design: Design, about: RowContext, site: Site, units: Mapping[str, Mapping[str, Any]]
) -> Iterator[Record]:
    """Accuracy of each probe on each target, with raw scores and with each model centred by its own mean."""
    kept = {unit: run.scores(unit) for unit in units}
    # The mean score of a source's own training texts is in the unit in which the source is the target.
    own_centre: dict[tuple[int, str], float] = {}
    for unit, header in units.items():
        place = [source["order"] for source in header["sources"]].index(header["target"])
        for method in TRANSFER_PROBES:
            own_centre[header["target"], method] = float(kept[unit][f"centre/{method}"][place])
    for unit, header in units.items():
        stamp = CheckpointStamp("", "", **header["at"])
        for i, source in enumerate(header["sources"]):
            for method in (m for m in TRANSFER_PROBES if (source["order"], m) in own_centre):
                raw = kept[unit][f"raw/{method}"][i].double() + header["biases"][method][i]
                shift = own_centre[source["order"], method] - float(kept[unit][f"centre/{method}"][i])
                for centring, scores in (("none", raw), ("own", raw + shift)):
                    yield from _accuracy_row(design, about, site, method, scores, source, centring, stamp)


def _accuracy_row(
    design: Design,
    about: RowContext,
    site: Site,
    method: str,
    scores: Tensor,
    source: Mapping[str, Any],
    centring: str,
    stamp: CheckpointStamp,
) -> Iterator[Record]:
    scored = held_out_scores(
        "accuracy", scores.float()[None, :, None], design.y_test, design.weights, design.test_groups
    )
    coords = {k: source[k] for k in ("source_stage", "source_step")} | {"centring": centring}
    note = _OWN_MEAN_NOTE if centring == "own" else None
    ends = scored.interval[0].ends
    row = about.row(
        "transfer_accuracy",
        float(scored.value),
        site,
        method=method,
        interval=ends,
        coords=coords,
        note=note,
        reason="degenerate scores",
    )
    yield from stamp.on([row])


def _q_value_rows(run: Run, about: RowContext, site: Site, units: Mapping[str, Mapping[str, Any]]) -> Iterator[Record]:
    """q-values (Benjamini–Hochberg) over all pairs of the concept with an effect."""
    kept = {unit: run.scores(unit)["p"].double() for unit, header in units.items() if header["controls"]}
    corrected = q_values(torch.cat(list(kept.values()))) if kept else torch.zeros(0)
    for unit, q in zip(kept, corrected.split([len(p) for p in kept.values()]), strict=True):
        stamp = CheckpointStamp("", "", **units[unit]["at"])
        for source, value in zip(units[unit]["sources"], q.float().tolist(), strict=True):
            coords = {name: str(text) for name, text in source.items() if name != "order"}
            n, reason = units[unit]["controls"], "the vector could not be tried"
            row = about.row("transfer_q", value, site, method="mass_mean", n=n, coords=coords, reason=reason)
            yield from stamp.on([row])
