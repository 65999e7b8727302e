"""Run a paper study: one unit per seed, resumable, divided over processes, shards or Ray workers; then judge its claims.

A unit is named by study, version, settings and seed. The checkpoints of a seed are kept until its rows are written.
"""

import contextlib
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd

from ontogeny.claims.claim import JudgedClaim, judge_claims
from ontogeny.errors import BadInput
from ontogeny.jobs.processes import Task, TaskResult, check_processes, limited_threads, run_tasks
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress, shows_progress
from ontogeny.jobs.resumable import (
    SHARDS_FOLDER,
    check_any_done,
    check_new_run_folder,
    job_session,
    log_failure,
)
from ontogeny.jobs.run_json import describe_environment
from ontogeny.jobs.study.paper_study import PRESET_NAMES, Lab, PaperStudy, load_paper_study, settings_as_json
from ontogeny.jobs.trace.ray_cluster import RayCluster, connect_ray
from ontogeny.jobs.trace.shards import Shard, gather_shards
from ontogeny.records import Record
from ontogeny.storage.failures import Failure
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
    """Cost of a study."""

    study: str
    preset: str
    seeds: int
    seeds_to_do: int
    seconds: float
    """Estimated seconds on two cores; of several processes, of all together."""
    claims: int
    processes: int = 1


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


def estimate_study(plan: StudyPlan, out: str | Path, *, jobs: int = 1) -> StudyEstimate:
    """Cost of `run_study` with this number of processes.

    Raises:
        BadInput: more processes than CPUs.
    """
    check_processes(jobs)
    run = Run(Path(out))
    todo = sum(not run.done(unit) for unit in plan.units.values())
    rounds = math.ceil(todo / jobs)
    per_seed = plan.study.seconds.get(plan.preset, float("nan"))
    claims = len(plan.study.claims)
    return StudyEstimate(plan.study.name, plan.preset, len(plan.seeds), todo, rounds * per_seed, claims, jobs)


@shows_progress
def run_study(
    plan: StudyPlan,
    out: str | Path,
    *,
    jobs: int = 1,
    threads: int | None = None,
    shard: Shard | None = None,
    cluster: RayCluster | None = None,
    keep_checkpoints: bool = False,
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Run the seeds that the run at `out` lacks. Finished seeds are not computed again.

    Args:
        jobs: Number of processes, each of which runs one seed. With several, a seed that fails is listed in run.json, and the others
            go on.
        threads: Threads of each process; by default 1 with several processes, otherwise those that torch has.
        shard: Run only this share of the seeds; at its end the finished seeds of all shards are gathered.
        cluster: Run the seeds with Ray workers.
        keep_checkpoints: Whether the checkpoints of finished seeds stay in the run.
        command: The command line, for run.json.

    Raises:
        BadInput: `out` holds something else, another process is writing there, more processes than CPUs, or no seed could be run.
    """
    if shard and cluster:
        raise BadInput("`shard` must not be set together with a Ray cluster, which divides the work itself.")
    if cluster and jobs > 1:
        raise BadInput("`jobs` must not be set together with a Ray cluster, which divides the work itself.")
    check_processes(jobs, threads)
    run = _open_run(Path(out), plan)
    if shard:
        share = Run(shard.folder(run))
        with run_lock(share.folder):
            share.describe(_about(plan, command))
            todo = {s: u for i, (s, u) in enumerate(plan.units.items()) if shard.includes(i) and not run.done(u)}
            failures = _run_seeds(
                [_Seed(plan, share, *pair) for pair in todo.items()], jobs, threads, keep_checkpoints, on_progress
            )
            share.describe(
                share.about | {"failures": [asdict(failure) for failure in failures.get(plan.study.name, ())]}
            )
        with run_lock(run.folder, patience=_GATHER_SECONDS):
            _finish(plan, run, command, gather_shards(run).failures)
        return run
    with _session(plan, run, command) as missing:
        if cluster and missing:
            _run_on_ray(plan, run, [seed.seed for seed in missing], cluster, on_progress)
            failures = {}
        else:
            failures = _run_seeds(missing, jobs, threads, keep_checkpoints, on_progress)
        check_any_done(run, plan.units.values(), failures.get(plan.study.name, ()))
        _finish(plan, run, command, failures.get(plan.study.name, ()))
    return run


def run_studies(
    plans: Sequence[StudyPlan],
    out: str | Path,
    *,
    jobs: int,
    threads: int | None = None,
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> list[Run]:
    """Run all missing seeds of several studies side by side, each study into `out/NAME`.

    Args:
        jobs, threads: As those of `run_study`.

    Raises:
        BadInput: as `run_study`; a study of which no seed could be run is an error only if there is no other.
    """
    check_processes(jobs, threads)
    runs = {plan.study.name: _open_run(Path(out) / plan.study.name, plan) for plan in plans}
    with contextlib.ExitStack() as sessions:
        missing = [
            seed for plan in plans for seed in sessions.enter_context(_session(plan, runs[plan.study.name], command))
        ]
        failures = _run_seeds(missing, jobs, threads, False, on_progress)
        if not any(run.done(unit) for plan in plans for run in [runs[plan.study.name]] for unit in plan.units.values()):
            raise BadInput(next(iter(failures.values()))[0].reason)
        for plan in plans:
            _finish(plan, runs[plan.study.name], command, failures.get(plan.study.name, ()))
    return list(runs.values())


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


@dataclass(frozen=True)
class _Seed:
    """A seed to run: the study, and where its rows go."""

    plan: StudyPlan
    run: Run
    seed: int
    unit: str

    @property
    def name(self) -> str:
        return f"seed {self.seed}"

    @property
    def work(self) -> Path:
        """Folder for its checkpoints."""
        return self.run.folder / _WORK_FOLDER / self.unit

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Arguments of `_compute_seed`."""
        study = self.plan.study
        return study.run, self.plan.settings, study.name, self.seed, self.work

    def keep(self, rows: Sequence[Record], seconds: float, keep_checkpoints: bool) -> None:
        """Write the rows, and remove the checkpoints."""
        self.run.keep(self.unit, [replace(row, unit=self.unit) for row in rows])
        entry = {"study": self.plan.study.name, "preset": self.plan.preset, "seed": self.seed}
        self.run.log({**entry, "elapsed": round(seconds, 2)})
        if not keep_checkpoints:
            shutil.rmtree(self.work, ignore_errors=True)
            with contextlib.suppress(OSError):  # absent, or other seeds are at work
                self.work.parent.rmdir()


@contextlib.contextmanager
def _session(plan: StudyPlan, run: Run, command: str | None) -> Iterator[list[_Seed]]:
    """Lock the run, gather what shards left, and describe it; yields the seeds that it lacks."""
    with job_session(run, plan.units.values()):
        about = _about(plan, command)
        about["study"]["seeds_in_run"] = run.about["study"].get("seeds_in_run", []) if run.about_path.is_file() else []
        run.describe(about)
        gather_shards(run)
        yield [_Seed(plan, run, seed, unit) for seed, unit in plan.units.items() if not run.done(unit)]


def _run_seeds(
    missing: Sequence[_Seed],
    jobs: int,
    threads: int | None,
    keep_checkpoints: bool,
    on_progress: ProgressCallback,
) -> dict[str, list[Failure]]:
    """Run seeds, of one study or of several; with several processes, returns the failures by study."""
    plans = {seed.plan.study.name: seed.plan for seed in missing}
    total = sum(len(plan.seeds) for plan in plans.values())
    begun = total - len(missing)
    if jobs > 1:
        return _run_in_processes(missing, jobs, threads or 1, keep_checkpoints, begun, on_progress)
    with limited_threads(threads):
        for index, seed in enumerate(missing):

            def report(activity: str, done: int, total_done: int, name: str = seed.name, index: int = index) -> None:
                on_progress(TraceProgress(name, begun + index, total, activity, done, total_done))

            report("starting", 0, 1)
            rows, seconds = _compute_seed(*seed.arguments, on_activity=report)
            seed.keep(rows, seconds, keep_checkpoints)
    return {}


def _run_in_processes(
    missing: Sequence[_Seed],
    jobs: int,
    threads: int,
    keep_checkpoints: bool,
    begun: int,
    on_progress: ProgressCallback,
) -> dict[str, list[Failure]]:
    failures: dict[str, list[Failure]] = {}
    several = len({seed.plan.study.name for seed in missing}) > 1
    seeds = {f"{seed.plan.study.name} {seed.name}" if several else seed.name: seed for seed in missing}
    tasks = [Task(name, _compute_seed, seed.arguments, seed.plan.study.run.__module__) for name, seed in seeds.items()]

    def on_result(result: TaskResult) -> None:
        seed = seeds[result.task.name]
        if result.failure is None:
            rows, seconds = result.value
            seed.keep(rows, seconds, keep_checkpoints)
            return
        failure = log_failure(seed.run, Failure(seed.name, seed.plan.study.name, result.failure))
        failures.setdefault(seed.plan.study.name, []).append(failure)

    run_tasks(tasks, jobs=jobs, threads=threads, done=begun, on_result=on_result, on_progress=on_progress)
    return failures


def _compute_seed(
    run: Callable[[Any, Lab], Iterable[Record]],
    settings: Any,
    study: str,
    seed: int,
    work: Path,
    on_activity: Callable[[str, int, int], None],
) -> tuple[list[Record], float]:
    """The rows of a seed, and the seconds that they took."""
    began = perf_counter()
    return list(run(settings, Lab(study, seed, work, on_activity))), perf_counter() - began


def _run_on_ray(
    plan: StudyPlan, run: Run, seeds: Sequence[int], cluster: RayCluster, on_progress: ProgressCallback
) -> None:
    """Each worker runs its seeds into a shard of its own, which is gathered when it is done."""
    with connect_ray(cluster) as ray:
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
        _run_seeds([_Seed(plan, share, seed, plan.units[seed])], 1, None, False, ignore_progress)
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


def _finish(plan: StudyPlan, run: Run, command: str | None, failures: Sequence[Failure] = ()) -> None:
    before = run.about.get("study", {}).get("seeds_in_run", []) if run.about_path.is_file() else []
    done = sorted({*before, *(seed for seed, unit in plan.units.items() if run.done(unit))})
    about = _about(plan, command or (run.about.get("command") if run.about_path.is_file() else None))
    if done:
        conditions = run.query("select distinct stage from records where stage is not null order by 1")["stage"]
        about["lineage"]["stages"] = [str(name) for name in conditions]
    about["study"]["seeds_in_run"] = done
    about["failures"] = [asdict(failure) for failure in failures]
    about["finished"] = all(run.done(unit) for unit in plan.units.values())
    run.describe(about)
