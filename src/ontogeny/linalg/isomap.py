"""Isomap: points in few dimensions whose distances are those along a graph of nearest neighbours (Tenenbaum et al. 2000)."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components, shortest_path

from ontogeny.errors import BadInput


def isomap(
    points: Float[NDArray[np.float64], "point d"], *, neighbours: int = 6, most: int = 10, dimensions: int = 2
) -> Float[NDArray[np.float64], "point k"]:
    """Coordinates by classical scaling of the lengths of shortest paths; the axes are ordered by variance, their signs are arbitrary.

    Args:
        neighbours: Edges from each point to this number of nearest others.
        most: If the graph has several parts, more neighbours are taken up to this number.

    Raises:
        BadInput: too few points, or a graph that stays in parts.
    """
    n = len(points)
    if n < 4 or not 1 <= neighbours <= most or dimensions < 1 or not np.isfinite(points).all():
        raise BadInput(
            f"`points` must be at least 4 finite ones, with 1 or more `neighbours` and `dimensions`, got {n} points."
        )
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    order = np.argsort(apart, axis=1)[:, 1:]
    for count in range(neighbours, min(most, n - 1) + 1):
        edges = np.zeros_like(apart)
        rows = np.repeat(np.arange(n), count)
        columns = order[:, :count].ravel()
        # An edge of length 0 would be none.
        edges[rows, columns] = np.maximum(apart[rows, columns], 1e-12)
        if connected_components(edges, directed=False)[0] == 1:
            break
    else:
        raise BadInput(
            f"the graph of {most} nearest neighbours is in parts, so there are no paths between them: raise `most`."
        )
    squared = shortest_path(edges, directed=False) ** 2
    centre = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-centre @ squared @ centre / 2)
    leading = np.argsort(values)[::-1][:dimensions]
    return np.asarray(vectors[:, leading] * np.sqrt(np.maximum(values[leading], 0)), dtype=np.float64)
