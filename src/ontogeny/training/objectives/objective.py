"""Type of a training loss, and its description in training.json."""

import functools
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from torch import Tensor, nn

Objective = Callable[[nn.Module, Any, nn.Module | None], Tensor]
"""`(network, batch, reference) -> loss` in nats; the reference is the stage's initial model.

An objective that needs the reference model has a true attribute `needs_reference`.
"""


def describe_objective(objective: Objective) -> dict[str, Any]:
    """An objective as JSON, to compare the settings of runs."""
    if isinstance(objective, functools.partial):
        return {
            **describe_objective(objective.func),
            **{key: _jsonable(value) for key, value in objective.keywords.items()},
        }
    if is_dataclass(objective) and not isinstance(objective, type):
        settings = {field.name: _jsonable(getattr(objective, field.name)) for field in fields(objective)}
        return {"name": type(objective).__name__, **settings}
    return {"name": getattr(objective, "__name__", type(objective).__name__)}


def _jsonable(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_jsonable(part) for part in value]
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return getattr(value, "__name__", type(value).__name__)
