"""Run all studies at one preset, each into a run directory of its own below one folder."""

from collections.abc import Sequence
from pathlib import Path

from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress
from ontogeny.jobs.study.paper_study import load_paper_study, paper_study_names
from ontogeny.jobs.study.study import StudyPlan, plan_study, run_studies, run_study
from ontogeny.storage.run import Run


def plan_replication(preset: str = "tiny", *, seeds: int = 5, names: Sequence[str] = ()) -> list[StudyPlan]:
    """The plans of the named studies, or of all whose packages are installed.

    Raises:
        BadInput: unknown study or preset.
    """
    installed = [name for name in paper_study_names() if not load_paper_study(name).missing_packages]
    return [plan_study(name, preset, seeds=seeds) for name in dict.fromkeys(names or installed)]


def run_replication(
    plans: Sequence[StudyPlan],
    out: Path,
    *,
    jobs: int = 1,
    threads: int | None = None,
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> list[Run]:
    """Run the studies, each into `out/NAME`; finished seeds are not computed again.

    Args:
        jobs: Number of processes, which share the seeds of all studies; with 1 the studies run one after the other.
        threads: As that of `run_study`.
    """
    if jobs > 1:
        return run_studies(plans, out, jobs=jobs, threads=threads, command=command, on_progress=on_progress)
    runs, total = [], sum(len(plan.seeds) for plan in plans)
    for i, plan in enumerate(plans):
        before = sum(len(earlier.seeds) for earlier in plans[:i])

        def report(now: TraceProgress, name: str = plan.study.name, before: int = before) -> None:
            place = f"{name}, {now.checkpoint}"
            on_progress(TraceProgress(place, before + now.checkpoints_done, total, now.activity, now.done, now.total))

        folder = out / plan.study.name
        runs.append(run_study(plan, folder, threads=threads, command=command, on_progress=report))
    return runs
