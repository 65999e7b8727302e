"""Examples of a world that is no language: inputs, targets, and of each example where it lies among the concepts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class WorldBatch:
    """Arrays whose first axis is the example."""

    inputs: NDArray[Any]
    targets: NDArray[np.float64]
    coordinates: Mapping[str, NDArray[Any]]
    """Ground truth by name: what a probe may look for, and what the oracle needs."""

    def __len__(self) -> int:
        return len(self.inputs)
