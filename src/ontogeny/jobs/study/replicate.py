"""Run all studies at one preset, each into a run directory of its own below one folder."""

from collections.abc import Sequence
from pathlib import Path

from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress
from ontogeny.jobs.study.paper_study import load_paper_study, paper_study_names
from ontogeny.jobs.study.study import StudyPlan, plan_study, run_study
from ontogeny.storage.run import Run


def plan_replication(preset: str = "tiny", *, seeds: int = 5, names: Sequence[str] = ()) -> list[StudyPlan]:
    """The plans of the named studies, or of all whose packages are installed.

    Raises:
        BadInput: unknown study or preset.
    """
    installed = [name for name in paper_study_names() if not load_paper_study(name).missing_packages]
    return [plan_study(name, preset, seeds=seeds) for name in names or installed]


def run_replication(
    plans: Sequence[StudyPlan],
    out: Path,
    *,
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> list[Run]:
    """Run the studies one after the other into `out/NAME`; finished seeds are not computed again."""
    runs = []
    for plan in plans:

        def report(now: TraceProgress, name: str = plan.study.name) -> None:
            on_progress(
                TraceProgress(
                    f"{name}, {now.checkpoint}",
                    now.checkpoints_done,
                    now.checkpoints_total,
                    now.activity,
                    now.done,
                    now.total,
                )
            )

        runs.append(run_study(plan, out / plan.study.name, command=command, on_progress=report))
    return runs
