"""Deep audit of local weights, one tensor at a time: NaN, infinities, and jumps of norms between checkpoints.

A norm jumps if its log-ratio to the checkpoint before is above ln 2 and 4 times those around it, and either returns at once
(one bad file) or is 8 robust deviations from the median (a file of another run). Early training changes norms fast, but smoothly
and in one direction; the first interval has none before it, so it counts as a jump only if the norm returns.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ontogeny.jobs.audit.checks import REFETCH_ADVICE, AuditFinding
from ontogeny.jobs.audit.metadata import CheckpointMetadata
from ontogeny.lineage import hub

if TYPE_CHECKING:
    from torch import Tensor

_MIN_LOG_JUMP = math.log(2.0)
_ROBUST_FACTOR = 8.0
_SPIKE_FACTOR = 4.0
_FAR_FACTOR = 1.5
"""In a random walk the smaller distance to a neighbour is at most 0.71 of that between the neighbours; with noise alone they are equal."""


@dataclass(frozen=True)
class WeightNorms:
    """Norms of a checkpoint's matrices, and the number of non-finite values per tensor."""

    norms: Mapping[str, float]
    broken: Mapping[str, int]


def read_weight_norms(sheet: CheckpointMetadata) -> WeightNorms | None:
    """Read the tensors of a local checkpoint; None if it is not on this machine."""
    import torch
    from safetensors import safe_open

    folder = _folder(sheet)
    if folder is None or sheet.problems or not sheet.tables:
        return None
    norms, broken = {}, {}
    for file, table in sheet.tables.items():
        if not (folder / file).is_file():
            return None
        with safe_open(folder / file, framework="pt") as opened:
            for name in table:
                tensor = _real(opened.get_tensor(name))
                if not tensor.is_floating_point():
                    continue
                # A norm in double precision is finite exactly if all values are: one pass checks both.
                norm = float(torch.linalg.vector_norm(tensor, dtype=torch.float64))
                if not math.isfinite(norm):
                    broken[name] = int((~torch.isfinite(tensor)).sum())
                elif tensor.ndim >= 2:
                    norms[name] = norm
    return WeightNorms(norms, broken)


def _folder(sheet: CheckpointMetadata) -> Path | None:
    c = sheet.checkpoint
    return Path(c.source) if c.is_local else hub.cached_snapshot(*c.hub_place)


def _real(tensor: "Tensor") -> "Tensor":
    """The tensor in a dtype that has norms and sums; float8 has none."""
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor


def far_from_neighbours(sheets: Sequence[CheckpointMetadata], read: Sequence[WeightNorms | None]) -> list[AuditFinding]:
    """Checkpoints far from both neighbours, although these are near to each other: weights of another part of training."""
    found = []
    for stage in dict.fromkeys(sheet.checkpoint.stage for sheet in sheets):
        every = [(s, n) for s, n in zip(sheets, read, strict=True) if s.checkpoint.stage == stage and n is not None]
        for (a, of_a), (b, of_b), (c, of_c) in zip(every, every[1:], every[2:], strict=False):
            names = sorted(set(of_a.norms) & set(of_b.norms) & set(of_c.norms))
            before, after, around = _distances(a, b, c, names)
            if min(before, after) > _FAR_FACTOR * around > 0:
                text = (
                    f"its weights are {min(before, after) / around:.3g} times as far from {a.name} and {c.name} as these are from "
                    "each other: they may be of another part of training"
                )
                advice = "Look at it before you trust a curve across it: is it this step?"
                found.append(AuditFinding("far", "warning", (b.name,), text, advice))
    return found


def _distances(
    a: CheckpointMetadata, b: CheckpointMetadata, c: CheckpointMetadata, names: Sequence[str]
) -> tuple[float, float, float]:
    """Distances a-b, b-c and a-c over all matrices."""
    import torch
    from safetensors import safe_open

    def tensor(sheet: CheckpointMetadata, name: str) -> "Tensor":
        folder = _folder(sheet)
        file = next(file for file, table in sheet.tables.items() if name in table)
        with safe_open(Path(str(folder)) / file, framework="pt") as opened:
            return _real(opened.get_tensor(name))

    squares = [0.0, 0.0, 0.0]
    for name in names:
        x, y, z = (tensor(sheet, name) for sheet in (a, b, c))
        if x.shape == y.shape == z.shape:
            for i, (one, other) in enumerate(((x, y), (y, z), (x, z))):
                squares[i] += float(torch.linalg.vector_norm(one.float() - other.float(), dtype=torch.float64)) ** 2
    return math.sqrt(squares[0]), math.sqrt(squares[1]), math.sqrt(squares[2])


def nonfinite_tensors(sheets: Sequence[CheckpointMetadata], read: Sequence[WeightNorms | None]) -> list[AuditFinding]:
    """Tensors with NaN or infinities."""
    found = []
    for sheet, of in zip(sheets, read, strict=True):
        if of is not None and of.broken:
            name, count = next(iter(of.broken.items()))
            holds = "tensor holds" if len(of.broken) == 1 else "tensors hold"
            text = f"{len(of.broken)} {holds} NaN or infinity, first {name} ({count} values)"
            found.append(AuditFinding("nan", "fault", (sheet.name,), text, REFETCH_ADVICE))
    return found


def norm_jumps(sheets: Sequence[CheckpointMetadata], read: Sequence[WeightNorms | None]) -> list[AuditFinding]:
    """Checkpoints whose norms jump relative to the checkpoints around them, within each stage."""
    found = []
    for stage in dict.fromkeys(sheet.checkpoint.stage for sheet in sheets):
        mine = [(s, n) for s, n in zip(sheets, read, strict=True) if s.checkpoint.stage == stage and n is not None]
        if len(mine) < 4:
            continue
        names = set.intersection(*(set(n.norms) for _, n in mine))
        odd: dict[int, list[tuple[float, str]]] = {}
        for name in sorted(names):
            for place, size in _outlying_norms([n.norms[name] for _, n in mine]).items():
                odd.setdefault(place, []).append((size, name))
        for place, tensors in sorted(odd.items()):
            size, name = max(tensors)
            factor = f"{math.exp(size):.3g}-fold" if math.isfinite(size) else "to or from zero"
            text = f"the norm of {len(tensors)} {'matrix' if len(tensors) == 1 else 'matrices'} jumps, most {name} ({factor})"
            advice = "Look at it before you trust a curve across it: is it from this run?"
            found.append(AuditFinding("jump", "warning", (mine[place][0].name,), text, advice))
    return found


def _outlying_norms(norms: Sequence[float]) -> dict[int, float]:
    """Index and log-ratio of the checkpoints at which a norm jumps."""
    values = np.array(norms)
    if (values == 0).all():
        return {}
    inside = (values[1:-1] == 0) & (values[:-2] > 0) & (values[2:] > 0)
    if inside.any():
        return {int(np.argmax(inside)) + 1: math.inf}
    if (values == 0).any():
        return {}  # starts at zero, as biases and adapters do
    x = np.diff(np.log(values))
    spread = 1.4826 * float(np.median(np.abs(x - np.median(x))))
    found: dict[int, float] = {}
    for i, size in enumerate(np.abs(x)):
        before, after, later = (abs(float(x[j])) if 0 <= j < len(x) else 0.0 for j in (i - 1, i + 1, i + 2))
        if size <= _MIN_LOG_JUMP or i in found:  # the return of a jump that is listed already
            continue
        comes_back = (
            after > _MIN_LOG_JUMP and x[i] * x[i + 1] < 0 and min(size, after) > _SPIKE_FACTOR * max(before, later)
        )
        foreign = (
            i > 0 and abs(x[i] - np.median(x)) > _ROBUST_FACTOR * spread and size > _SPIKE_FACTOR * max(before, after)
        )
        if comes_back or foreign:
            found[i + 1] = float(size)
    return found
