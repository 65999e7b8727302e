"""What traces are compared by: all their rows, and what their ledger says was done."""

import json

import pandas as pd

from ontogeny.lab.settings import Settings
from ontogeny.run import Run

QUICK = Settings(sites="resid", resamples=100, permutations=100)


def table(run: Run, where: str = "true") -> pd.DataFrame:
    """All rows in one order, whatever the order in which they were written; the map as text."""
    found = run.records(where)
    found["coords"] = found.coords.map(lambda coords: json.dumps(dict(coords), sort_keys=True))
    return found.sort_values(list(found.columns), ignore_index=True)


def same(a: Run, b: Run) -> None:
    pd.testing.assert_frame_equal(table(a), table(b), check_exact=True)


def visits(run: Run) -> list[str]:
    return [line["checkpoint"] for line in run.ledger()]


def units(run: Run) -> list[str]:
    return [unit for line in run.ledger() for unit in line.get("units", [])]
