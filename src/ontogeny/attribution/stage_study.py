"""Parts of studies of the stage behind a behaviour: claims, a planted run with its unplanted controls, rows of naming and of the gap."""

from collections.abc import Callable, Iterator, Mapping

from ontogeny.attribution.comparison import StageExperiment, named_stage
from ontogeny.attribution.path import TrainingPath
from ontogeny.attribution.recorded_tiers import Behaviour, behaviour_value
from ontogeny.attribution.retraining import Floats
from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Quantity
from ontogeny.claims.shapes import Separation
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.records import Record

PLANTED_STAGES = 3

PLANTED_STAGE_IS_NAMED = Claim(
    "planted_stage_is_named",
    "The first-order estimate with curvature names the planted stage more often than chance.",
    "arXiv:2506.00175, section 5",
    "stages with spurious correlations are identified",
    Separation(Quantity("named_planted", "hessian"), Quantity("named_planted", "chance"), unit="share of seeds"),
    "unplanted",
)
AGREES_WITH_RETRAINING = Claim(
    "agrees_with_retraining",
    "The first-order estimate with curvature ranks effects as retraining does, better than the order of the stages.",
    "arXiv:2506.00175, section 5",
    "high correlation with retraining",
    Separation(
        Quantity("rank_correlation", "hessian"),
        Quantity("rank_correlation", "order"),
        unit="difference in rank correlation with retraining",
    ),
    "shuffled",
)
CURVATURE_MATTERS = Claim(
    "curvature_matters",
    "Without the Hessian the estimate is further from retraining.",
    "arXiv:2506.00175, section 4",
    "dropping the Hessian over-blames early stages",
    Separation(Quantity("error", "no hessian"), Quantity("error", "hessian"), unit="relative error"),
    "shuffled",
)


def planted_runs(
    lab: Lab, controls: int, measure: Callable[[int, int, str | None], Iterator[Record]]
) -> Iterator[Record]:
    """Rows of one seed: a planted run, whose planted stage is the seed modulo three, and its unplanted controls.

    Args:
        measure: Rows of a run, from the planted stage, the run's own seed and the name of the control.
    """
    planted = lab.seed % PLANTED_STAGES
    yield lab.row("named_planted", 1 / PLANTED_STAGES, "chance")
    yield lab.row("named_planted", 1 / PLANTED_STAGES, "chance", control="unplanted")
    yield from measure(planted, lab.seed, None)
    for index in range(controls):
        lab.on_activity("unplanted control", index, controls)
        yield from measure(planted, lab.seed + 1000 * index + 500, "unplanted")


def planted_stage_names(planted: int) -> list[str]:
    """Names of the stages in rows."""
    return [f"stage {i + 1}" + (" planted" if i == planted else "") for i in range(PLANTED_STAGES)]


def naming_rows(
    lab: Lab, estimates: Mapping[str, Floats], planted: int, gap: float, error: float, control: str | None
) -> Iterator[Record]:
    """Whether each estimate names the planted stage, and whether it names any.

    Args:
        estimates: Stage × behaviour by estimator; the first behaviour is the gap.
        error: Standard error of the gap where no stage made it.
    """
    for tier, scores in estimates.items():
        stage = named_stage(scores[:, 0], gap, error)
        yield lab.row("named_planted", float(stage == planted), tier, control=control)
        yield lab.row("named_any", float(stage is not None), tier, control=control)


def gap_rows(
    lab: Lab,
    experiment: StageExperiment,
    path: TrainingPath,
    without: TrainingPath,
    planted: int,
    gaps: Callable[[TrainingPath], Floats],
    control: str | None,
) -> Iterator[Record]:
    """The gap at the end with all stages and without the planted one, and the first behaviour along training.

    Args:
        without: The training without the planted stage.
        gaps: The gap of each example at the end of a path.
    """
    for name, one in (("all stages", path), ("without the stage", without)):
        values = gaps(one)
        yield lab.row("gap", float(values.mean()), name, control=control, n=len(values))
    first = next(iter(experiment.behaviours.values()))
    yield from rows_along_training(lab, path, {"gap_along": first}, f"planted in stage {planted + 1}", 30, control)


def rows_along_training(
    lab: Lab, path: TrainingPath, behaviours: Mapping[str, Behaviour], condition: str, points: int, control: str | None
) -> Iterator[Record]:
    """Behaviours, by metric, at about so many steps of a path, evenly spaced."""
    for index, step in enumerate(path.steps):
        if index % max(1, len(path.steps) // points) == 0:
            for metric, behaviour in behaviours.items():
                value = behaviour_value(path, step.state.parameters, behaviour)
                yield lab.row(metric, value, condition, step=index, control=control)
