"""What needs all targets of a transfer: accuracies with each model's own centring, and p-values corrected over the whole matrix."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ontogeny.lab import scoring
from ontogeny.lab.design import Design
from ontogeny.lab.job import Job
from ontogeny.lab.rows import About, Stamp, cells
from ontogeny.lab.transfer.plan import METHODS, VERSION
from ontogeny.records import Record
from ontogeny.run import Run
from ontogeny.sites import Site
from ontogeny.statistics.fdr import q_values
from ontogeny.store import digest, read_header

OWN_MEAN = "each model centred by the mean of its own training texts, without labels (arXiv:2504.02904)"


def relate(run: Run, job: Job, design: Design, site: Site) -> str:
    """Write the rows of one concept over all of its transfer units; those of an earlier call go."""
    name = design.concept.name
    units = _units(run, name)
    prefix = f"transfers-{digest(name)}"
    unit = f"{prefix}-{digest(sorted(units))}"
    about = About(name, str(design.concept.position), len(design.split.test), job.settings.seed)
    records = [*_accuracies(run, design, about, site, units), *_corrected(run, about, site, units)]
    run.keep(unit, Stamp(job.lineage.name, unit).sign(records))
    run.forget(prefix, but=unit)
    return unit


def _units(run: Run, concept: str) -> dict[str, dict[str, Any]]:
    headers = {path.stem: read_header(path) for path in sorted((run.folder / "scores").glob("transfer-*.safetensors"))}
    # Pairs that were measured in another way are none of this family of tests.
    same = {unit: told for unit, told in headers.items() if told.get("version") == VERSION}
    return {unit: told for unit, told in same.items() if told["concept"] == concept and run.done(unit)}


def _accuracies(
    run: Run, design: Design, about: About, site: Site, units: Mapping[str, Mapping[str, Any]]
) -> Iterator[Record]:
    """Of each probe on each target whose means both are known, with each model's own mean taken away, and without."""
    kept = {unit: run.scores(unit) for unit in units}
    # Where a source's own training texts lie along its own direction: told by the unit in which it is the target.
    home: dict[tuple[int, str], float] = {}
    for unit, told in units.items():
        place = [source["order"] for source in told["sources"]].index(told["target"])
        for method in METHODS:
            home[told["target"], method] = float(kept[unit][f"centre/{method}"][place])
    for unit, told in units.items():
        for i, source in enumerate(told["sources"]):
            for method in (m for m in METHODS if (source["order"], m) in home):
                raw = kept[unit][f"raw/{method}"][i].double() + told["biases"][method][i]
                moved = home[source["order"], method] - float(kept[unit][f"centre/{method}"][i])
                for centring, scores in (("none", raw), ("own", raw + moved)):
                    yield from _accuracy(
                        design, about, site, method, scores, source, centring, Stamp("", "", **told["at"])
                    )


def _accuracy(
    design: Design,
    about: About,
    site: Site,
    method: str,
    scores: Tensor,
    source: Mapping[str, Any],
    centring: str,
    stamp: Stamp,
) -> Iterator[Record]:
    value = scoring.point("accuracy", scores.float()[None, :, None], design.y_test)
    samples = scoring.samples("accuracy", scores.float()[None, :, None], design.y_test, design.weights)
    ends = scoring.interval("accuracy", value, samples, design.test_groups)
    coords = {k: source[k] for k in ("source_stage", "source_step")} | {"centring": centring}
    note = OWN_MEAN if centring == "own" else None
    yield from stamp.on(
        cells(about, "transfer_accuracy", value, [site], method=method, interval=ends, coords=coords, note=note)
    )


def _corrected(run: Run, about: About, site: Site, units: Mapping[str, Mapping[str, Any]]) -> Iterator[Record]:
    """Benjamini–Hochberg over every pair of the concept whose effect is known."""
    kept = {unit: run.scores(unit)["p"].double() for unit, told in units.items() if told["controls"]}
    corrected = q_values(torch.cat(list(kept.values()))) if kept else torch.zeros(0)
    for unit, q in zip(kept, corrected.split([len(p) for p in kept.values()]), strict=True):
        stamp = Stamp("", "", **units[unit]["at"])
        for source, value in zip(units[unit]["sources"], q.tolist(), strict=True):
            coords = {name: str(told) for name, told in source.items() if name != "order"}
            row = cells(
                about,
                "transfer_q",
                torch.tensor([value]),
                [site],
                method="mass_mean",
                n=units[unit]["controls"],
                coords=coords,
                reason="the vector could not be tried",
            )
            yield from stamp.on(row)
