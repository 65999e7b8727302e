"""What a comparison of stages found, as sentences made from its rows: one panel a side, the first stage beside the last."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from ontogeny.findings import Reading
from ontogeny.findings.sentences import interval, number, step_number
from ontogeny.findings.table import coord, tidy
from ontogeny.findings.timeline import timeline

PANELS = {"knowledge": "Knowledge", "truth": "Truthfulness", "refusal": "Refusal", "confidence": "Confidence"}


def panels(records: pd.DataFrame) -> dict[str, list[str]]:
    """Sentences by the name of the panel; a side without rows has none."""
    table = labelled(records)
    names = stage_names(table)
    if len(names) < 2:
        return {}
    found = {title: SIDES[side](_Rows(table, names)) for side, title in PANELS.items() if side in SIDES}
    return {title: said for title, said in found.items() if said}


def labelled(records: pd.DataFrame) -> pd.DataFrame:
    """The rows in one shape, with the stage's label in `here` and the other stage's in `there`."""
    table = tidy(records)
    steps = table[table["stage"].ne("")].groupby("stage")["step"].nunique()
    several = {str(stage) for stage, count in steps.items() if count > 1}

    def label(stage: str, step: float) -> str:
        return f"{stage} {step_number(step)}" if stage in several else stage

    here = [label(s, t) for s, t in zip(table["stage"], table["step"], strict=True)]
    other = pd.to_numeric(coord(table, "other_step"), errors="coerce")
    there = [label(s, t) if s else "" for s, t in zip(coord(table, "other_stage"), other, strict=True)]
    return table.assign(here=here, there=there)


def stage_names(table: pd.DataFrame) -> list[str]:
    """Labels in developmental order."""
    if not table["step"].notna().any():
        return []
    placed = timeline(table).place(table[table["stage"].ne("")])
    return list(dict.fromkeys(placed["here"]))


@dataclass(frozen=True)
class _Rows:
    table: pd.DataFrame
    names: list[str]

    @property
    def first(self) -> str:
        return self.names[0]

    @property
    def last(self) -> str:
        return self.names[-1]

    def of(
        self, metric: str, here: str | None = None, there: str | None = None, control: str = "", **told: str
    ) -> pd.DataFrame:
        rows = self.table[self.table["metric"].eq(metric) & self.table["control"].eq(control)]
        rows = rows if here is None else rows[rows["here"].eq(here)]
        rows = rows if there is None else rows[rows["there"].eq(there)]
        for key, value in told.items():
            rows = rows[coord(rows, key).eq(value)]
        return rows

    def read(
        self, metric: str, here: str | None = None, there: str | None = None, control: str = "", **told: str
    ) -> Reading:
        """The first such row."""
        rows = self.of(metric, here, there, control, **told)
        if rows.empty:
            return Reading(math.nan, note="no row")
        one = rows.iloc[0]
        return Reading(float(one["value"]), float(one["low"]), float(one["high"]), int(one["n"]), str(one["note"]))


def _truth(rows: _Rows) -> list[str]:
    a, b = rows.first, rows.last
    cosine = rows.of("stage_cosine", b, a)
    if cosine.empty:
        return []
    said = []
    for concept in dict.fromkeys(cosine["concept"]):
        own = _Rows(rows.table[rows.table["concept"].eq(concept)], rows.names)
        said += _truth_of(own, str(concept), a, b)
    return said


def _truth_of(rows: _Rows, concept: str, a: str, b: str) -> list[str]:
    alike = rows.read("stage_cosine", b, a)
    if not alike.known:
        return [f"{concept}: {a} and {b} cannot be compared: {alike.note}."]
    halves, chance = (
        rows.read("stage_cosine", a, a, "split_half"),
        coord(rows.of("stage_cosine", b, a), "chance").iloc[0],
    )
    said = [
        f"{concept}: the directions of {a} and {b} have a cosine of {interval(alike)} "
        f"(two halves of {a}'s statements agree at {number(halves.value)}, two random directions within ±{number(float(chance))})."
    ]
    own, carried, first = (rows.read("stage_auroc", here, there) for here, there in ((b, b), (b, a), (a, a)))
    kept = (
        "as well as its own"
        if own.low <= carried.value <= own.high
        else "worse than its own"
        if carried.value < own.value
        else "better than its own"
    )
    said.append(
        f"{a}'s probe reads {b} at AUROC {interval(carried)}, {kept} ({interval(own)}; {a} itself: {interval(first)})."
    )
    pushed, mine = rows.read("push_effect", b, a, length="source"), rows.read("push_effect", b, b, length="source")
    if not pushed.known:
        note = rows.read("nie", b).note
        return [*said, f"Verdicts were not asked for: {note}."] if note else said
    null = rows.read("push_effect", b, a, "random_direction")
    same = rows.read("push_effect", b, a, length="target")
    said.append(
        f"Pushing {b} along {a}'s direction moves its verdicts by {interval(pushed)} of at most 1, along its own by {interval(mine)}; "
        f"{a}'s direction at {b}'s length by {interval(same)}, random ones as long as {a}'s by {interval(null)}."
    )
    across, inside, before = (
        interval(rows.read("nie", here, there, way="mean", form="full")) for here, there in ((b, a), (b, b), (a, a))
    )
    said.append(
        f"As a normalised indirect effect: {across} from {a} into {b}, {inside} inside {b}, {before} inside {a}; "
        f"a random push into {b} has {interval(rows.read('nie', b, a, 'random_direction'))}."
    )
    return said


SIDES: Mapping[str, Callable[[_Rows], list[str]]] = {"truth": _truth}
