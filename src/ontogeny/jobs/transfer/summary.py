"""Results that need all targets of a transfer: accuracies with each model's own centring, and q-values over the whole matrix."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.jobs.transfer.plan import TRANSFER_PROBES, TRANSFER_VERSION
from ontogeny.jobs.transfer.rows import SiteRows
from ontogeny.measurements.design import Design
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.measurements.scores import held_out_scores
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.fdr import q_values
from ontogeny.storage.checksums import check_file
from ontogeny.storage.files import content_digest, read_tensor_header
from ontogeny.storage.run import Run

_Headers = Mapping[str, Mapping[str, Any]]
"""Headers of the transfer units of a concept."""
_OWN_MEAN_NOTE = "each model centred by the mean of its own training texts, without labels (arXiv:2504.02904)"


def summarise_transfer(run: Run, plan: TracePlan, design: Design, site: Site) -> str:
    """Write the summary rows of one concept over all of its units, in place of an earlier summary; returns the unit.

    A summary of the same units is left as it is.
    """
    name, build = design.concept.name, SiteRows.of(design, site, plan.settings.seed)
    headers = _unit_headers(run, name)
    prefix = f"transfers-{content_digest(name)}"
    unit = f"{prefix}-{content_digest(sorted(headers))}"
    if not run.done(unit):
        records = [*_accuracy_rows(run, build, design, headers), *_q_value_rows(run, build, headers)]
        run.keep(unit, CheckpointStamp(plan.lineage.name, unit).sign(records))
    run.forget(prefix, but=unit)
    return unit


def _unit_headers(run: Run, concept: str) -> _Headers:
    paths = sorted((run.folder / "scores").glob("transfer-*.safetensors"))
    for path in paths:
        check_file(path)
    headers = {path.stem: read_tensor_header(path) for path in paths}
    # Units of another version do not belong to this family of tests.
    current = {unit: header for unit, header in headers.items() if header.get("version") == TRANSFER_VERSION}
    return {unit: header for unit, header in current.items() if header["concept"] == concept and run.done(unit)}


def _accuracy_rows(run: Run, build: SiteRows, design: Design, headers: _Headers) -> Iterator[Record]:
    """Accuracy of each probe on each target, with raw scores and with each model centred by its own mean."""
    kept = {unit: run.scores(unit) for unit in headers}
    # The mean score of a source's own training texts is in the unit in which the source is the target.
    own_centre: dict[tuple[int, str], float] = {}
    for unit, header in headers.items():
        place = [source["order"] for source in header["sources"]].index(header["target"])
        for method in TRANSFER_PROBES:
            own_centre[header["target"], method] = float(kept[unit][f"centre/{method}"][place])
    for unit, header in headers.items():
        stamp = CheckpointStamp("", "", **header["at"])
        for (i, source), method in itertools.product(enumerate(header["sources"]), TRANSFER_PROBES):
            if (source["order"], method) not in own_centre:
                continue
            raw = kept[unit][f"raw/{method}"][i].double() + header["biases"][method][i]
            shift = own_centre[source["order"], method] - float(kept[unit][f"centre/{method}"][i])
            for centring, scores, note in (("none", raw, None), ("own", raw + shift, _OWN_MEAN_NOTE)):
                scored = held_out_scores(
                    "accuracy", scores.float()[None, :, None], design.y_test, design.weights, design.test_groups
                )
                coords = {key: source[key] for key in ("source_stage", "source_step")} | {"centring": centring}
                columns = {"method": method, "note": note, "reason": "degenerate scores"}
                ends = scored.interval[0].ends
                row = build.row("transfer_accuracy", float(scored.value), coords, interval=ends, **columns)
                yield from stamp.on([row])


def _q_value_rows(run: Run, build: SiteRows, headers: _Headers) -> Iterator[Record]:
    """q-values (Benjamini–Hochberg) over all pairs of the concept with an effect."""
    kept = {unit: run.scores(unit)["p"].double() for unit, header in headers.items() if header["controls"]}
    corrected = q_values(torch.cat(list(kept.values()))) if kept else torch.zeros(0)
    for unit, q in zip(kept, corrected.split([len(p) for p in kept.values()]), strict=True):
        stamp, n = CheckpointStamp("", "", **headers[unit]["at"]), headers[unit]["controls"]
        for source, value in zip(headers[unit]["sources"], q.float().tolist(), strict=True):
            coords = {name: str(text) for name, text in source.items() if name != "order"}
            row = build.row("transfer_q", value, coords, n=n, reason="the vector could not be tried")
            yield from stamp.on([row])
