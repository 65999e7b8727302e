"""Batches of a world of arrays: inputs, targets and concept coordinates of each example."""

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
    """Ground truth by name, for probes and for the oracle."""

    def __len__(self) -> int:
        return len(self.inputs)
