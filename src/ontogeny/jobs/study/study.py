"""Run a paper study: one unit per seed, resumable, divided over shards or Ray workers; then judge its claims.

A unit is named by study, version, settings and seed. The checkpoints of a seed are kept until its rows are written.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd

from ontogeny.claims.claim import JudgedClaim, judge_claims
from ontogeny.errors import BadInput
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress, shows_progress
from ontogeny.jobs.resumable import SHARDS_FOLDER, check_new_run_folder, job_session
from ontogeny.jobs.run_json import describe_environment
from ontogeny.jobs.study.paper_study import PRESET_NAMES, Lab, PaperStudy, load_paper_study, settings_as_json
from ontogeny.jobs.trace.ray_cluster import RayCluster, connect_ray
from ontogeny.jobs.trace.shards import Shard, gather_shards
from ontogeny.storage.files import content_digest
from ontogeny.storage.lock import run_lock
from ontogeny.storage.run import Run

_WORK_FOLDER = "work"
"""Folder of a run with the checkpoints of unfinished seeds."""
_GATHER_SECONDS = 3600


@dataclass(frozen=True)
class StudyPlan:
    """A study with its settings and seeds."""

    study: PaperStudy
    preset: str
    settings: Any
    seeds: tuple[int, ...]

    @property
    def units(self) -> dict[int, str]:
        """Name of the unit of each seed."""
        content = [self.study.name, self.study.version, settings_as_json(self.settings)]
        return {seed: content_digest([*content, seed]) for seed in self.seeds}


@dataclass(frozen=True)
class StudyEstimate:
    """What a study would compute."""

    study: str
    preset: str
    seeds: int
    seeds_to_do: int
    seconds: float
    """Estimated seconds on two cores."""
    claims: int


def plan_study(
    name: str, preset: str = "tiny", *, seeds: int = 5, changes: Mapping[str, Any] | None = None
) -> StudyPlan:
    """Plan a study.

    Args:
        seeds: Number of seeds, from 0 on.
        changes: Settings that differ from the preset.

    Raises:
        BadInput: unknown study, preset or setting, no seeds, or a package that is not installed.
    """
    if seeds < 1:
        raise BadInput(f"`seeds` must be at least 1, got {seeds}.")
    study = load_paper_study(name)
    if missing := study.missing_packages:
        raise BadInput(
            f"the study {name} needs {missing[0]}, which is not installed: pip install 'ontogeny[{study.packages[missing[0]]}]'."
        )
    return StudyPlan(study, preset, study.settings(preset, changes), tuple(range(seeds)))


def estimate_study(plan: StudyPlan, out: str | Path) -> StudyEstimate:
    """What `run_study` would compute."""
    run = Run(Path(out))
    todo = sum(not run.done(unit) for unit in plan.units.values())
    per_seed = plan.study.seconds.get(plan.preset, float("nan"))
    return StudyEstimate(plan.study.name, plan.preset, len(plan.seeds), todo, todo * per_seed, len(plan.study.claims))


@shows_progress
def run_study(
    plan: StudyPlan,
    out: str | Path,
    *,
    shard: Shard | None = None,
    cluster: RayCluster | None = None,
    keep_checkpoints: bool = False,
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Run the seeds that the run at `out` lacks. Finished seeds are not computed again.

    Args:
        shard: Run only this share of the seeds; at its end the finished seeds of all shards are gathered.
        cluster: Run the seeds with Ray workers.
        keep_checkpoints: Whether the checkpoints of finished seeds stay in the run.
        command: The command line, for run.json.

    Raises:
        BadInput: `out` holds something else, or another process is writing there.
    """
    if shard and cluster:
        raise BadInput("`shard` must not be set together with a Ray cluster, which divides the work itself.")
    run = _open_run(Path(out), plan)
    if shard:
        share = Run(shard.folder(run))
        with run_lock(share.folder):
            share.describe(_about(plan, command))
            todo = {s: u for i, (s, u) in enumerate(plan.units.items()) if shard.includes(i) and not run.done(u)}
            _run_seeds(plan, share, todo, keep_checkpoints, on_progress)
        with run_lock(run.folder, patience=_GATHER_SECONDS):
            gather_shards(run)
            _finish(plan, run, command)
        return run
    with job_session(run, plan.units.values()):
        about = _about(plan, command)
        about["study"]["seeds_in_run"] = run.about["study"].get("seeds_in_run", []) if run.about_path.is_file() else []
        run.describe(about)
        gather_shards(run)
        todo = {seed: unit for seed, unit in plan.units.items() if not run.done(unit)}
        if cluster and todo:
            _run_on_ray(plan, run, todo, cluster, on_progress)
        else:
            _run_seeds(plan, run, todo, keep_checkpoints, on_progress)
        _finish(plan, run, command)
    return run


def judge_study(run: Run) -> list[JudgedClaim]:
    """Judge the claims of the study that a run holds.

    Raises:
        BadInput: the run is not that of a study.
    """
    study = study_of_run(run)
    metrics = sorted({metric for claim in study.claims for metric in claim.metrics})
    listed = ", ".join(f"'{metric}'" for metric in metrics)
    return judge_claims(study.claims, run.records(f"metric in ({listed})"))


def study_of_run(run: Run) -> PaperStudy:
    """The study that a run holds.

    Raises:
        BadInput: the run is not that of a study.
    """
    about = run.about
    if "study" not in about:
        raise BadInput(f"the run must be one of a study, got {run.folder}: name the folder of `ontogeny study run`.")
    return load_paper_study(about["study"]["name"])


def claims_table(judged: Sequence[JudgedClaim]) -> pd.DataFrame:
    """Judged claims as a table: claim, source, report of the paper, verdict and evidence."""
    return pd.DataFrame(
        [
            {
                "claim": j.claim.name,
                "text": j.claim.text,
                "source": j.claim.source,
                "paper": j.claim.reported,
                "verdict": j.verdict,
                "effect": j.effect.value,
                "low": j.effect.low,
                "high": j.effect.high,
                "threshold": j.claim.shape.threshold,
                "unit": j.claim.shape.unit,
                "seeds": j.effect.seeds,
                "seeds_above": j.effect.above,
                "null": j.null.value,
                "null_low": j.null.low,
                "null_high": j.null.high,
                "note": j.note,
            }
            for j in judged
        ]
    )


def _run_seeds(
    plan: StudyPlan, run: Run, todo: Mapping[int, str], keep_checkpoints: bool, on_progress: ProgressCallback
) -> None:
    begun = len(plan.seeds) - len(todo)
    for index, (seed, unit) in enumerate(todo.items()):

        def report(activity: str, done: int, total: int, seed: int = seed, index: int = index) -> None:
            on_progress(TraceProgress(f"seed {seed}", begun + index, len(plan.seeds), activity, done, total))

        work, began = run.folder / _WORK_FOLDER / unit, perf_counter()
        report("starting", 0, 1)
        lab = Lab(plan.study.name, seed, work, report)
        run.keep(unit, [replace(row, unit=unit) for row in plan.study.run(plan.settings, lab)])
        seconds = perf_counter() - began
        run.log({"study": plan.study.name, "preset": plan.preset, "seed": seed, "elapsed": round(seconds, 2)})
        if not keep_checkpoints:
            shutil.rmtree(work, ignore_errors=True)
    if not keep_checkpoints and (folder := run.folder / _WORK_FOLDER).is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _run_on_ray(
    plan: StudyPlan, run: Run, todo: Mapping[int, str], cluster: RayCluster, on_progress: ProgressCallback
) -> None:
    """Each worker runs its seeds into a shard of its own, which is gathered when it is done."""
    with connect_ray(cluster) as ray:
        seeds = list(todo)
        done = len(plan.seeds) - len(seeds)
        run_one = ray.remote(_run_one_seed)
        waiting = {
            run_one.remote(plan.study.name, plan.preset, settings_as_json(plan.settings), seed, str(run.folder)): seed
            for seed in seeds
        }
        while waiting:
            finished, _ = ray.wait(list(waiting), num_returns=1)
            for task in finished:
                ray.get(task)
                gather_shards(run)
                done += 1
                on_progress(TraceProgress(f"seed {waiting.pop(task)}", done, len(plan.seeds), "finished"))


def _run_one_seed(name: str, preset: str, settings: dict[str, Any], seed: int, folder: str) -> int:
    """Run a seed into the shard of its own number; called in a Ray worker."""
    study = load_paper_study(name)
    plan = StudyPlan(study, preset, type(study.presets[preset])(**_tuples(settings)), (seed,))
    share = Run(Path(folder) / SHARDS_FOLDER / f"{seed}-of-ray")
    with run_lock(share.folder):
        share.describe(_about(plan, None))
        _run_seeds(plan, share, plan.units, False, ignore_progress)
    return seed


def _tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


def _open_run(folder: Path, plan: StudyPlan) -> Run:
    run = Run(folder)
    if not run.about_path.is_file():
        check_new_run_folder(folder)
        return run
    before = run.about.get("study")
    if before is None:
        raise BadInput(f"`out` must hold a run of a study, got {folder} with another run: choose another one.")
    now = _described(plan)
    for key in ("name", "version", "settings"):
        if before[key] != now[key]:
            raise BadInput(
                f"`out` must hold a run of the study {plan.study.name} with the same {key}, got {folder} with {before[key]}: "
                "choose another one."
            )
    return run


def _described(plan: StudyPlan) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(json.dumps(settings_as_json(plan.settings)))
    return {
        "name": plan.study.name,
        "version": plan.study.version,
        "preset": plan.preset if plan.preset in PRESET_NAMES else None,
        "settings": settings,
        "seeds": list(plan.seeds),
    }


def _about(plan: StudyPlan, command: str | None) -> dict[str, Any]:
    return {
        **describe_environment("cpu", command),
        "lineage": {"name": plan.study.name, "source": plan.study.paper, "stages": [], "checkpoints": []},
        "concepts": [],
        "study": _described(plan),
        "failures": [],
        "finished": False,
    }


def _finish(plan: StudyPlan, run: Run, command: str | None) -> None:
    before = run.about.get("study", {}).get("seeds_in_run", []) if run.about_path.is_file() else []
    done = sorted({*before, *(seed for seed, unit in plan.units.items() if run.done(unit))})
    conditions = run.query("select distinct stage from records where stage is not null order by 1")["stage"]
    about = _about(plan, command or (run.about.get("command") if run.about_path.is_file() else None))
    about["lineage"]["stages"] = [str(name) for name in conditions]
    about["study"]["seeds_in_run"] = done
    about["finished"] = all(run.done(unit) for unit in plan.units.values())
    run.describe(about)
