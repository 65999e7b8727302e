"""What traces are compared by: all their rows, and what their ledger says was done."""

import json
from pathlib import Path

import pandas as pd

from ontogeny.measurements.settings import TraceSettings
from ontogeny.storage.run import Run
from tests.helpers.planted_lineages import rows, save_run, write

QUICK = TraceSettings(sites="resid", resamples=100, permutations=100)
FIVE = {1: 0.0, 2: 4.0, 3: 8.0, 5: 8.0, 8: 9.0}


def save_five(home: Path) -> None:
    """Five checkpoints, and two concepts that share some texts."""
    save_run(home / "five", FIVE)
    write(home / "one.csv", rows(characters=36))
    write(home / "two.csv", rows(characters=44)[8:])


def table(run: Run, where: str = "true") -> pd.DataFrame:
    """All rows in one order, whatever the order in which they were written; the map as text."""
    found = run.records(where)
    found["coords"] = found.coords.map(lambda coords: json.dumps(dict(coords), sort_keys=True))
    return found.sort_values(list(found.columns), ignore_index=True)


def same(a: Run, b: Run) -> None:
    pd.testing.assert_frame_equal(table(a), table(b), check_exact=True)


def visits(run: Run) -> list[str]:
    return [line["checkpoint"] for line in run.ledger() if "checkpoint" in line]


def units(run: Run) -> list[str]:
    return [unit for line in run.ledger() for unit in line.get("units", [])]
