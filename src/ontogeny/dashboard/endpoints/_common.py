"""Common parts of the endpoints: the runs of the application, and JSON without NaN."""

import math
import time
from typing import Annotated, Any

from fastapi import Query, Request

from ontogeny.dashboard.shown_run import ShownRun

LARGEST_NUMBER = 2**53
"""Steps and numbers of rows above it are not exact as numbers of JSON, and too large for a table far above it."""
StepQuery = Annotated[int | None, Query(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)]


def run_of(request: Request, run: str) -> ShownRun:
    """The run of that name among those of the application; a dependency of FastAPI.

    Raises:
        BadInput: it has no such run.
    """
    shown: ShownRun = request.app.state.runs[run]
    shown.asked = time.monotonic()
    return shown


def finite(value: Any) -> Any:
    """A cell of a table as JSON has it: NaN and what is missing as None, maps as texts."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, dict):
        return ", ".join(f"{key} {text}" for key, text in value.items())
    if isinstance(value, int):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):  # pandas.NA
        return None
    return None if not math.isfinite(number) else int(number) if number.is_integer() else number
