"""One comparison: preflight, then each aspect over all stages, kept as a unit, so that what is finished is not computed again.

Every checkpoint is loaded once for all aspects while memory lasts; the ledger counts the loads and names the units.
"""

import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ontogeny._version import __version__
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import StageStudy, StudyInputs, load_study
from ontogeny.jobs.compare.preflight import PreflightReport, run_preflight
from ontogeny.jobs.compare.stages import StageModels, model_loader, stamp_rows, weight_identities
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress
from ontogeny.jobs.run_json import REPORTED_PACKAGES, describe_concept
from ontogeny.lineage import Checkpoint, Lineage, weight_bytes
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.models.model import Model
from ontogeny.models.size import measure_flops_per_second, model_size
from ontogeny.storage.files import content_digest
from ontogeny.storage.lock import is_empty_run, run_lock
from ontogeny.storage.rollback import rollback_on_failure
from ontogeny.storage.run import Run

COMPARISON_VERSION = 2
"""Raised whenever the same input would give other numbers."""


@dataclass(frozen=True)
class ComparisonRunOptions:
    """What decides how models are run."""

    device: str = "cpu"
    dtype: str = "float32"
    tokenizer: Path | None = None
    allow_pickle: bool = False
    memory: int | None = None
    """Bytes that models may take together; None: half of what there is."""


@dataclass(frozen=True, eq=False)
class ComparisonPlan:
    """What is to be done; nothing is loaded yet."""

    lineage: Lineage
    checkpoints: Mapping[str, Checkpoint]
    inputs: StudyInputs
    aspects: Sequence[str]
    how: ComparisonRunOptions
    preflight: PreflightReport
    units: Mapping[str, str]
    """By aspect."""
    bytes: Mapping[str, int] = field(default_factory=dict)

    def missing(self, run: Run) -> list[str]:
        return [aspect for aspect in self.aspects if not run.done(self.units[aspect])]


def plan_comparison(
    lineage: Lineage,
    checkpoints: Mapping[str, Checkpoint],
    inputs: StudyInputs,
    aspects: Sequence[str],
    how: ComparisonRunOptions | None = None,
) -> ComparisonPlan:
    """Check all that can be checked before a model is loaded.

    Raises:
        BadInput: fewer than two stages, two of the same weights, or a checkpoint or tokenizer that cannot be read.
    """
    how = how or ComparisonRunOptions()
    prints = weight_identities(checkpoints, allow_pickle=how.allow_pickle)
    seen = run_preflight(
        checkpoints, inputs.texts, requests=inputs.framed, tokenizer=how.tokenizer, allow_pickle=how.allow_pickle
    )
    places = [[name, c.stage, c.step, c.name, prints[name]] for name, c in checkpoints.items()]
    units = {a: _unit_key(load_study(a), places, inputs, how.dtype) for a in aspects}
    weights = {name: weight_bytes(c, allow_pickle=how.allow_pickle) for name, c in checkpoints.items()}
    return ComparisonPlan(lineage, checkpoints, inputs, aspects, how, seen, units, weights)


def _unit_key(study: StageStudy, places: list[list[Any]], inputs: StudyInputs, dtype: str) -> str:
    key = [COMPARISON_VERSION, study.UNIT, places, study.input_digest(inputs), dtype]
    return f"compare-{study.UNIT}-{content_digest(key)}"


def compare(
    job: ComparisonPlan, out: Path, *, command: str | None = None, on_progress: ProgressCallback = ignore_progress
) -> Run:
    """Compute the aspects that the run at `out` does not hold yet. One that cannot be had is told with its reason, and the others go on.

    Raises:
        BadInput: no aspect can be had, `out` holds something else, or another process writes there.
    """
    run = existing_comparison(job, out)
    todo = job.missing(run)
    with run_lock(run.folder), rollback_on_failure(run, [job.units[aspect] for aspect in todo]):
        run.describe(_run_json(job, run, command, [], finished=False))
        failures = _run_studies(job, run, todo, on_progress)
        if not any(run.done(job.units[aspect]) for aspect in job.aspects):
            raise BadInput(failures[0]["reason"])
        run.describe(_run_json(job, run, command, failures, finished=True))
    return run


def _run_studies(job: ComparisonPlan, run: Run, todo: Sequence[str], watch: ProgressCallback) -> list[dict[str, str]]:
    """Each aspect; returns those that could not be had."""
    how, failures = job.how, []
    load = model_loader(
        device=how.device, dtype=getattr(torch, how.dtype), tokenizer=how.tokenizer, allow_pickle=how.allow_pickle
    )
    stages = StageModels(job.checkpoints, load, budget=how.memory)
    for number, aspect in enumerate(todo):
        began, before = time.perf_counter(), stages.loads.copy()
        models = _ProgressStages(stages, aspect, number, len(todo), watch)
        try:
            records = stamp_rows(load_study(aspect).run(models, job.inputs), job.checkpoints)
            unit = job.units[aspect]
            run.keep(unit, CheckpointStamp(job.lineage.name, unit).sign(records))
        except BadInput as error:
            failures.append({"checkpoint": aspect, "stage": "", "reason": str(error)})
            run.log({"aspect": aspect, "failed": str(error)})
            continue
        run.forget(f"compare-{load_study(aspect).UNIT}-", but=unit)
        run.log(
            {
                "aspect": aspect,
                "unit": unit,
                "stages": list(job.checkpoints),
                "loads": dict(stages.loads - before),
                "elapsed": round(time.perf_counter() - began, 3),
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
        )
    return failures


class _ProgressStages(Mapping[str, Model]):
    """The stages, saying which of them an aspect has come to."""

    def __init__(self, stages: StageModels, aspect: str, done: int, of: int, watch: ProgressCallback) -> None:
        self.stages, self.aspect, self.done, self.of, self.watch = stages, aspect, done, of, watch
        self.seen: dict[str, None] = {}

    def __getitem__(self, name: str) -> Model:
        self.seen[name] = None
        n = len(self.stages)
        self.watch(TraceProgress(f"{self.aspect} · {name}", self.done * n + len(self.seen) - 1, self.of * n, ""))
        return self.stages[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def __contains__(self, name: object) -> bool:
        return name in self.stages


def existing_comparison(job: ComparisonPlan, out: Path) -> Run:
    """The run at `out`: none yet, or a comparison of the same lineage.

    Raises:
        BadInput: another run, or a folder that is none.
    """
    run = Run(out)
    if not run.about_path.is_file():
        if out.exists() and not (out.is_dir() and is_empty_run(out)):
            raise BadInput(f"{out} exists and is no run directory. Choose an empty or a new folder with --out.")
        return run
    told = run.about
    if "compare" not in told:
        raise BadInput(f"{out} holds a trace, not a comparison. Choose another folder with --out.")
    if told["lineage"]["name"] != job.lineage.name or told["compare"]["stages"] != list(job.checkpoints):
        before = ", ".join(told["compare"]["stages"])
        raise BadInput(f"{out} compares {before} of {told['lineage']['name']}. Choose another folder with --out.")
    return run


def _run_json(
    job: ComparisonPlan, run: Run, command: str | None, failures: Sequence[Mapping[str, str]], *, finished: bool
) -> dict[str, Any]:
    """run.json: what was compared, how, and what the preflight saw."""
    before: dict[str, Any] = run.about["compare"]["units"] if run.about_path.is_file() else {}
    inputs = job.inputs
    every = [*inputs.statements, *([inputs.requests] if inputs.requests else [])]
    concepts = {concept.name: describe_concept(concept, ()) for concept in every}
    parents = {stage.name: stage.parent for stage in job.lineage.stages}
    return {
        "ontogeny": __version__,
        "command": command,
        "lineage": {
            "name": job.lineage.name,
            "source": ", ".join(
                dict.fromkeys(Path(c.source).parent.name if c.is_local else c.source for c in job.checkpoints.values())
            ),
            "stages": list(parents),
            "parents": parents,
            "notes": list(job.lineage.notes),
            "checkpoints": [
                {
                    **{
                        key: getattr(c, key)
                        for key in ("name", "source", "revision", "commit", "stage", "step", "tokens")
                    },
                    "train_seed": c.train_seed,
                    "bytes": job.bytes[name],
                }
                for name, c in job.checkpoints.items()
            ],
        },
        "concepts": list(concepts.values()),
        "settings": {
            "seed": inputs.seed,
            "dtype": job.how.dtype,
            "template": inputs.template,
            "pairing": inputs.pairing,
            "question": asdict(inputs.question) if inputs.question else "by tokenizer",
            "neutral texts": len(inputs.neutral),
            "questions": len(inputs.questions),
        },
        "compare": {
            "stages": list(job.checkpoints),
            "aspects": list(job.aspects),
            "units": before | {a: u for a, u in job.units.items() if run.done(u)},
            "preflight": job.preflight.told(),
        },
        "device": job.how.device,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in REPORTED_PACKAGES}},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "accelerator": torch.cuda.get_device_name() if job.how.device.startswith("cuda") else None,
        },
        "failures": list(failures),
        "finished": finished,
    }


@dataclass(frozen=True)
class ComparisonEstimate:
    stages: int
    aspects: dict[str, float]
    """About how many seconds each takes; only those that are still to be done."""
    texts: int
    bytes_to_read: int
    bytes_to_download: int
    seconds: float


def estimate_comparison(job: ComparisonPlan, run: Run) -> ComparisonEstimate:
    """Counts from the inputs and the checkpoints' headers; time from a matrix product measured now on the device."""
    todo = job.missing(run)
    remote = [name for name, c in job.checkpoints.items() if not c.is_local]
    products = max(model_size(c, weights=job.bytes[name]).products for name, c in job.checkpoints.items())
    speed = measure_flops_per_second(job.how.device, getattr(torch, job.how.dtype))
    blocks = max(int(value) for line in job.preflight.lines if line.what == "blocks" for value in line.values.values())
    tokens = {a: load_study(a).count_tokens(job.inputs, len(job.checkpoints), blocks) for a in todo}
    # A small model is bound by calls: no token is cheaper than 20 µs.
    seconds = {a: round(n * max(2 * products / speed, 2e-5), 1) for a, n in tokens.items()}
    reading = sum(job.bytes.values()) if todo else 0
    return ComparisonEstimate(
        len(job.checkpoints),
        seconds,
        len(job.inputs.texts),
        reading,
        sum(job.bytes[name] for name in remote) if todo else 0,
        round(sum(seconds.values()) + reading / 5e8, 1),
    )
