"""Rows of one model's geometry: dimensions beside Gaussian clouds, coherence of neighbours, and its lowest and highest tokens."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.embeddings.coherence import neighbour_coherence
from ontogeny.embeddings.correlation import mean_interval
from ontogeny.embeddings.dimension import local_dimensions, two_nn_dimension
from ontogeny.embeddings.matrices import EmbeddingSpace
from ontogeny.embeddings.model_geometry import GeometrySettings, SpaceGeometry
from ontogeny.embeddings.neighbours import nearest_neighbours
from ontogeny.embeddings.nulls import frequency_matched_order, gaussian_cloud, shuffled_order
from ontogeny.embeddings.tokens import ComparedTokens, usable_rows
from ontogeny.records import Record, make_record
from ontogeny.statistics.nulls import null_interval

LISTED_TOKENS = 10
"""Tokens of lowest and of highest dimension that are listed, and neighbours of each."""
_NULL_QUERIES = 100
"""Tokens whose dimension is measured in a Gaussian cloud."""
_NO_DISTINCT = "all neighbours coincide"


def own_geometry_rows(
    space: EmbeddingSpace,
    whole: Float[Tensor, "vocabulary d"],
    geometry: SpaceGeometry,
    tokens: ComparedTokens,
    settings: GeometrySettings,
    classes: Mapping[str, str] | None = None,
) -> Iterator[Record]:
    """Rows of one matrix of one model.

    Args:
        whole: Rows of all tokens, as `space_geometry` got them.
        classes: Class of each token, where it is known; else spelling says which tokens are related.
    """
    rows = whole[usable_rows(whole)]
    coords = {"space": space, "k": str(settings.neighbours_of_dimension(len(rows)))}
    known = geometry.dimensions > 0
    values = geometry.dimensions[known].double()
    yield _mean_row("local_dimension", "pca_95", values, coords, settings.seed)
    yield _two_nn_row(geometry.distances[known], {"space": space}, None, settings.seed)
    for control, same in (("gaussian", False), ("gaussian_covariance", True)):
        cloud = gaussian_cloud(rows, same_covariance=same, seed=settings.seed)
        picked = torch.arange(min(_NULL_QUERIES, len(cloud)))
        near, far = nearest_neighbours(cloud, picked, max(2, int(coords["k"])))
        yield _mean_row(
            "local_dimension", "pca_95", local_dimensions(cloud, near).double(), coords, settings.seed, control
        )
        yield _two_nn_row(far[:, :2], {"space": space}, control, settings.seed)
    centre = rows.double().mean(0)
    share = float(centre.square().sum() / rows.double().square().sum(1).mean())
    yield make_record("mean_share", share, n=len(rows), coords={"space": space}, seed=settings.seed)
    yield from _coherence_rows(space, geometry, tokens, settings, classes)


def _mean_row(
    metric: str, method: str | None, values: Tensor, coords: Mapping[str, str], seed: int, control: str | None = None
) -> Record:
    value = float(values.mean()) if len(values) else math.nan
    columns: dict[str, Any] = {"method": method, "control": control, "coords": dict(coords), "reason": _NO_DISTINCT}
    return make_record(metric, value, n=len(values), interval=mean_interval(values), seed=seed, **columns)


def _two_nn_row(distances: Tensor, coords: Mapping[str, str], control: str | None, seed: int) -> Record:
    measured = two_nn_dimension(distances, seed=seed)
    columns: dict[str, Any] = {"method": "two_nn", "control": control, "coords": dict(coords), "seed": seed}
    ends = (measured.low, measured.high)
    return make_record(
        "intrinsic_dimension", measured.value, n=measured.tokens, interval=ends, reason=measured.reason, **columns
    )


def _coherence_rows(
    space: EmbeddingSpace,
    geometry: SpaceGeometry,
    tokens: ComparedTokens,
    settings: GeometrySettings,
    classes: Mapping[str, str] | None,
) -> Iterator[Record]:
    queries = (geometry.dimensions > 0).nonzero()[:, 0]
    if not len(queries):
        return
    near, names, seed = geometry.near[queries], tokens.names, settings.seed
    method = "spelling" if classes is None else "classes"
    coherence = neighbour_coherence(names, queries, near, classes)
    order = geometry.dimensions[queries].argsort(stable=True)
    quarter = max(1, len(order) // 4)
    for part, places in (("all", order), ("lowest", order[:quarter]), ("highest", order[-quarter:])):
        coords = {"space": space, "part": part}
        yield _mean_row("neighbour_coherence", method, coherence[places].double(), coords, seed)
    draws = []
    for draw in range(settings.nulls):
        frequency = tokens.log_frequency
        moved = (
            shuffled_order(len(tokens), seed=seed + draw)
            if frequency is None
            else frequency_matched_order(frequency, seed=seed + draw)
        )
        draws.append(neighbour_coherence(names, queries, moved[near], classes).mean())
    control, drawn = "shuffled" if tokens.log_frequency is None else "frequency_matched", torch.stack(draws).double()
    columns: dict[str, Any] = {
        "method": method,
        "control": control,
        "seed": seed,
        "coords": {"space": space, "part": "all"},
    }
    yield make_record(
        "neighbour_coherence", float(drawn.mean()), n=len(drawn), interval=null_interval(drawn), **columns
    )
    ends = {"lowest": order[:LISTED_TOKENS], "highest": order.flip(0)[:LISTED_TOKENS]}
    for part, places in ends.items():
        for rank, place in enumerate(places.tolist()):
            query = int(queries[place])
            beside = [names[i] for i in near[place].tolist()[:LISTED_TOKENS]]
            coords = {
                "space": space,
                "part": part,
                "rank": str(rank),
                "token": names[query],
                "neighbours": " | ".join(beside),
            }
            value = float(geometry.dimensions[query])
            yield make_record("token_dimension", value, n=int(near.shape[1]), coords=coords, method="pca_95", seed=seed)
            score = float(coherence[place])
            yield make_record("token_coherence", score, n=int(near.shape[1]), coords=coords, method=method, seed=seed)
