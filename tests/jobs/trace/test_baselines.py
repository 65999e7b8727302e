"""Traces are summarised alike in whatever order the database returns rows, and checkpoints without a step have a label."""

import itertools
from typing import Any, cast

import pandas as pd
import pytest

from ontogeny.dynamics.summary import _baselines
from ontogeny.jobs.trace.shards import choose_certificate
from ontogeny.records import checkpoint_label

ROWS = [
    ("small", f"surface_{name}", metric, value, "unit")
    for name, auroc in (("tfidf", 0.3), ("length", 0.5), ("casing", 0.5))
    for metric, value in (("auroc", auroc), ("accuracy", 0.9))
]


class Shuffled:
    """A run whose rows come in this order."""

    def __init__(self, rows: tuple[tuple[object, ...], ...]) -> None:
        self.rows = rows

    def query(self, _: str) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=["concept", "control", "metric", "most", "unit"])


def test_of_equal_surface_baselines_it_is_always_the_same_one() -> None:
    found = [_baselines(cast("Any", Shuffled(rows)), {"resid"})["small"] for rows in itertools.permutations(ROWS)]
    assert {one.surface_scores for one in found} == {("unit", "surface_length")}
    assert all(one.surface == {"auroc": 0.5, "accuracy": 0.9} for one in found)


@pytest.mark.parametrize("step", [None, float("nan"), pd.NA])
def test_checkpoint_without_a_step_is_the_end_of_its_stage(step: Any) -> None:
    assert checkpoint_label("sft", step) == "sft end"
    assert checkpoint_label("sft", pd.Series([1200, pd.NA], dtype="Int64").iloc[0]) == "sft 1,200"


def test_certificate_is_that_of_the_first_checkpoint_whichever_shard_was_faster() -> None:
    first, second, third = ({"checkpoint": f"checkpoint-{step}"} for step in (1, 2, 3))
    visits = ["checkpoint-1", "checkpoint-2"]
    assert choose_certificate(None, [second, first], visits) == first
    assert choose_certificate(second, [first], visits) == first
    assert choose_certificate(first, [second], visits) == first
    assert choose_certificate(second, [], visits) == second
    assert choose_certificate(None, [], visits) is None
    assert choose_certificate(third, [first], visits) == third  # of an earlier trace of other checkpoints
