"""Verdicts on vectors: the number of controls alone never makes a vector one that does not work."""

import math

import pandas as pd
import pytest

from ontogeny.findings.steering_verdicts import TOO_FEW_CONTROLS, steering_verdicts
from ontogeny.jobs.evaluate.verdicts import _verdict_rows
from ontogeny.records import RECORD_COLUMNS
from ontogeny.statistics.attainable import controls_needed

NAMES = [*RECORD_COLUMNS]


def vector_rows(step: int, controls: int, *, p: float | None = None, low: float = 5.47, seen: float = 6.36):
    """The rows of one vector: an effect of 6.36 nats beside random directions from −1.47 to 1.80, beyond all of them unless p is given."""
    base = {
        "unit": f"evaluation-{step}",
        "stage": "base",
        "step": step,
        "concept": "c",
        "method": "caa",
        "site": "resid.2",
    }
    at = {"site": "resid.2", "alpha": "1"}
    effect = base | {"metric": "steering_effect", "split": "test", "coords": at}
    return [
        base | {"metric": "chosen_alpha", "value": 1.0, "n": 40, "coords": {"site": "resid.2"}},
        effect | {"value": seen, "low": low, "high": 7.25, "n": 40},
        effect | {"value": 0.1, "low": -1.47, "high": 1.80, "n": controls, "control": "random_direction"},
        effect | {"metric": "steering_p", "value": 1 / (controls + 1) if p is None else p, "n": controls},
    ]


def verdicts(rows) -> pd.DataFrame:
    """The rows of `steering_works`, by step."""
    table = pd.DataFrame(rows).reindex(columns=NAMES)
    table["control"] = table["control"].astype(object).where(table["control"].notna(), None)
    made = [vars(record) for record in _verdict_rows(table) if record.metric == "steering_works"]
    return pd.DataFrame(made).sort_values("step").reset_index(drop=True)


@pytest.mark.parametrize("controls", [5, 19, 59, 60, 200, 400])
@pytest.mark.parametrize("checkpoints", [1, 3, 20])
def test_one_vector_beyond_all_controls_works_or_is_not_told(checkpoints: int, controls: int) -> None:
    others = [row for step in range(1, checkpoints) for row in vector_rows(step, controls, p=0.6, low=-1.0, seen=0.2)]
    found = verdicts([*vector_rows(0, controls), *others])
    needed = controls_needed(checkpoints, 0.05)
    assert found.value[0] != 0
    if controls >= needed:
        assert found.value[0] == 1
    elif controls < needed - 1:
        assert math.isnan(found.value[0])
        assert f"Too few controls to tell ({needed:,} needed)" in found.note[0]
    assert set(found.value[1:]) <= {0.0}, "their intervals hold 0"


def test_what_controls_cannot_change_still_decides() -> None:
    """Beside 20 effects with 200 controls: an interval with 0, an effect inside the controls, and one the other way."""
    rest = [row for step in range(3, 20) for row in vector_rows(step, 200, p=0.9, low=-1.0, seen=0.2)]
    cases = [
        *vector_rows(0, 200, low=-0.1),
        *vector_rows(1, 200, p=0.4),
        *vector_rows(2, 200, seen=-6.0, low=-7.0),
    ]
    cases[-3] |= {"high": -5.0}
    found = verdicts([*cases, *rest])
    assert found.value[:3].tolist() == [0.0, 0.0, 0.0]
    for note, reason in zip(
        found.note, ("its interval holds 0", "does not beat random", "moves the other way"), strict=False
    ):
        assert f"It does not work: {reason}" in note.replace("it does", "does").replace("it moves", "moves")


def test_many_effects_at_the_least_p_help_each_other() -> None:
    rows = [row for step in range(20) for row in vector_rows(step, 200)]
    assert verdicts(rows).value.tolist() == [1.0] * 20


def test_summary_counts_vectors_without_a_verdict() -> None:
    rest = [row for step in range(2, 20) for row in vector_rows(step, 200, p=0.9, low=-1.0, seen=0.2)]
    found = verdicts([*vector_rows(0, 200), *rest])
    [concept] = steering_verdicts(found)
    assert concept.tag == f"none of 18 vectors work; 1 with {TOO_FEW_CONTROLS}"
    assert not concept.works
    [alone] = steering_verdicts(found[:1])
    assert alone.tag == TOO_FEW_CONTROLS


@pytest.mark.parametrize(
    ("method", "prompt", "as_much"), [("caa", 7.0, True), ("caa", -9.0, False), ("ablate", 9.0, False)]
)
def test_prompt_does_as_much_only_in_the_same_direction(method: str, prompt: float, as_much: bool) -> None:
    sign = -1 if method == "ablate" else 1
    rows = [row | {"method": method} for row in vector_rows(0, 200)]
    for row in rows[1:3]:
        ends = sorted((sign * row["low"], sign * row["high"]))
        row |= {"value": sign * row["value"], "low": ends[0], "high": ends[1]}
    rows.append(rows[1] | {"method": "prompt", "control": "prompt_only", "value": prompt, "coords": {}})
    [made] = verdicts(rows).itertuples()
    assert made.value == 1
    assert ("The prompt does as much or more." in made.note) is as_much
