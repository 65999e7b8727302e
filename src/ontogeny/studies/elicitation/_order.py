"""The order over checkpoints: the step at which each way of asking has half of its gain, and its distance to that of plain answers.

Each curve is tested as an event of emergence: its end is above chance and above its lowest point, and the order of the checkpoints matters.
The curves of a comparison are corrected together. Differences of two steps come from the same resamples of the groups.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.records import Record, StageRowBuilder
from ontogeny.statistics.bootstrap import mean_samples
from ontogeny.statistics.emergence import EmergenceEvent, correct_events, emergence_event, step_difference

Hits = Mapping[tuple[str, str | None], Float[Tensor, " question"]]
"""Right answers by way of asking and control."""
SHOWN = "shown"
_CHANCE = 0.5
_MIN_CHECKPOINTS = 4


def order_rows(
    table: StageRowBuilder, hits: Mapping[str, Hits], weights: Float[Tensor, "sample question"], *, seed: int
) -> Iterator[Record]:
    """Rows of each training stage with at least four checkpoints, under the name of its last one.

    Args:
        hits: By name of the checkpoint, such as `base:219`.
        weights: Bootstrap of the groups.
    """
    curves = {
        (stage, way): _event(points, way, hits, weights, seed)
        for stage, points in _training_stages(hits).items()
        for way in dict.fromkeys(way for _, name in points for way in hits[name])
    }
    measured = [key for key in curves if key[1][1] is None]
    corrected = dict(zip(measured, correct_events([curves[key] for key in measured]), strict=True))
    events = {**curves, **corrected}
    last = {stage: points[-1][1] for stage, points in _training_stages(hits).items()}
    for (stage, (way, control)), event in events.items():
        n = len(next(iter(hits[last[stage]].values())))
        yield _event_row(table, f"{way}_step", last[stage], event, n, control)
        if way == SHOWN:
            continue
        shown = events[stage, (SHOWN, None)]
        difference = step_difference(event, shown)
        reason = difference.reason.replace("first event", "step of this way").replace(
            "second event", "step of the plain answers"
        )
        known = not math.isnan(difference.value)
        yield table.row(
            f"{way}_minus_shown",
            difference.value,
            last[stage],
            n=n if known else 0,
            ends=(difference.low, difference.high),
            control=control,
            reason=reason,
            note=reason or None if known else None,
        )


def _training_stages(names: Sequence[str] | Mapping[str, object]) -> dict[str, list[tuple[int, str]]]:
    """Steps and names of the checkpoints of each training stage that has enough of them."""
    stages: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        stage, _, step = name.rpartition(":")
        if stage and step.isdecimal():
            stages.setdefault(stage, []).append((int(step), name))
    return {stage: sorted(points) for stage, points in stages.items() if len(points) >= _MIN_CHECKPOINTS}


def _event(
    points: Sequence[tuple[int, str]],
    way: tuple[str, str | None],
    hits: Mapping[str, Hits],
    weights: Float[Tensor, "sample question"],
    seed: int,
) -> EmergenceEvent:
    known = [(step, hits[name][way]) for step, name in points if way in hits[name]]
    table = torch.stack([values for _, values in known])
    steps = torch.tensor([step for step, _ in known])
    return emergence_event(steps, table.mean(1), mean_samples(table, weights), floor=_CHANCE, seed=seed)


def _event_row(
    table: StageRowBuilder, metric: str, stage: str, event: EmergenceEvent, n: int, control: str | None
) -> Record:
    known = not math.isnan(event.step)
    return table.row(
        metric,
        event.step,
        stage,
        n=n if known else 0,
        ends=(event.low, event.high),
        control=control,
        reason=event.reason,
        note=event.reason or None if known else None,
    )
