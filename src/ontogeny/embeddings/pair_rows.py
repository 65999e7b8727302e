"""Rows of two models' geometries compared: global, local, dimensions and hidden states, each beside its nulls."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.embeddings.correlation import Correlation, correlate, mean_interval
from ontogeny.embeddings.hidden_states import TokenPlaces
from ontogeny.embeddings.local_linear import neighbour_overlap, weight_cosines
from ontogeny.embeddings.matrices import EMBEDDING_SPACES, EmbeddingSpace
from ontogeny.embeddings.model_geometry import TIED, GeometrySettings, ModelGeometry, SpaceGeometry
from ontogeny.embeddings.nulls import ShuffleKind, gaussian_cloud, null_orders
from ontogeny.embeddings.similarity import FEWEST_TOKENS, frequency_bins, global_similarity, shuffled_similarities
from ontogeny.embeddings.tokens import ComparedTokens
from ontogeny.records import Record, make_record
from ontogeny.sites import Site
from ontogeny.statistics.nulls import null_interval

FORMS = {"raw": False, "centred": True}
"""Cosines of the vectors as they are, and about their mean."""
_NULL_TOKENS = 1000
"""Tokens of which the nulls of the global similarity are drawn; fewer tokens make a null wider, never narrower."""
_SHUFFLES: tuple[ShuffleKind, ...] = ("shuffled", "frequency_matched")
_NO_FREQUENCY = "the frequencies of tokens are not known: give texts"
_FEW_TOKENS = f"fewer than {FEWEST_TOKENS} tokens have a usable row in both models"


@dataclass(frozen=True, eq=False)
class GeometryComparison:
    """Two models compared."""

    records: list[Record]
    influences: dict[str, Float[Tensor, " token"]]
    """Contribution of each token to the centred global similarity, by space: for intervals over checkpoints."""


def compare_geometries(
    one: ModelGeometry,
    other: ModelGeometry,
    tokens: ComparedTokens,
    places: TokenPlaces | None,
    settings: GeometrySettings,
    coords: Mapping[str, str],
) -> GeometryComparison:
    """Compare two models that share the tokens.

    Args:
        places: Where the hidden states were read, if they were.
        coords: Further coordinates of each row, such as the other model.
    """
    records: list[Record] = []
    influences: dict[str, Tensor] = {}
    for space in EMBEDDING_SPACES:
        build = _Build(tokens, settings, {**coords, "space": space})
        a, b = _space(one, space), _space(other, space)
        if isinstance(a, str) or isinstance(b, str):
            records.append(build.row("embedding_similarity", math.nan, 0, reason=a if isinstance(a, str) else str(b)))
            continue
        if space == "unembedding" and one.missing.get(space) == TIED == other.missing.get(space):
            records.append(build.row("embedding_similarity", math.nan, 0, reason=TIED))
            continue
        for row, correlation in build.global_rows(a, b):
            records.append(row)
            if correlation is not None:
                influences[space] = correlation.influence
        records += build.local_rows(a, b)
        records += build.dimension_rows(a, b)
    if one.hidden is not None and other.hidden is not None and places is not None:
        records += _Build(tokens, settings, coords).hidden_rows(one.hidden, other.hidden, places)
    return GeometryComparison(records, influences)


def _space(geometry: ModelGeometry, space: EmbeddingSpace) -> SpaceGeometry | str:
    """The geometry of a space; that of a tied unembedding is the embedding's."""
    if space in geometry.spaces:
        return geometry.spaces[space]
    reason = geometry.missing.get(space, "not read")
    return geometry.spaces["embedding"] if reason == TIED else reason


@dataclass(frozen=True)
class _Build:
    tokens: ComparedTokens
    settings: GeometrySettings
    coords: Mapping[str, str]

    def row(self, metric: str, value: float, n: int, **columns: Any) -> Record:
        coords = {**self.coords, **columns.pop("coords", {})}
        return make_record(metric, value, n=n, coords=coords, seed=self.settings.seed, **columns)

    def null(self, metric: str, draws: list[Tensor], **columns: Any) -> Iterator[Record]:
        if draws:
            drawn = torch.stack(draws).double()
            yield self.row(metric, float(drawn.mean()), len(drawn), interval=null_interval(drawn), **columns)

    def orders(self, kind: ShuffleKind, places: Tensor) -> list[Tensor]:
        """Random orders of the tokens at some places."""
        frequency = None if self.tokens.log_frequency is None else self.tokens.log_frequency[places]
        return null_orders(kind, len(places), frequency, self.settings.nulls, seed=self.settings.seed)

    def global_rows(self, a: SpaceGeometry, b: SpaceGeometry) -> Iterator[tuple[Record, Correlation | None]]:
        both = (a.usable & b.usable).nonzero()[:, 0]
        if len(both) < FEWEST_TOKENS:
            yield self.row("embedding_similarity", math.nan, 0, reason=_FEW_TOKENS), None
            return
        for form, centred in FORMS.items():
            for record, correlation in self.similarity_rows(
                "embedding_similarity", a.rows[both], b.rows[both], both, {"form": form}, centred=centred
            ):
                yield record, correlation if form == "centred" else None
            cloud = self.cloud_null(a.rows[both], b.rows[both], {"form": form}, centred=centred)
            yield from ((record, None) for record in cloud)

    def similarity_rows(
        self,
        metric: str,
        x: Tensor,
        y: Tensor,
        places: Tensor,
        coords: Mapping[str, str],
        *,
        centred: bool,
        site: Site | None = None,
        controls: tuple[ShuffleKind, ...] = _SHUFFLES,
    ) -> Iterator[tuple[Record, Correlation | None]]:
        """Global similarity, plain and with frequency held fixed, then its nulls."""
        frequency = None if self.tokens.log_frequency is None else self.tokens.log_frequency[places]
        similarity = global_similarity(x, y, frequency, centred=centred)
        columns: dict[str, Any] = {"site": site, "coords": {**coords, "frequency": self.tokens.frequency}}
        plain, partial, count = similarity.pearson, similarity.partial, len(x)
        reason = "all cosines are equal"
        yield (
            self.row(metric, plain.value, count, method="pearson", interval=plain.interval, reason=reason, **columns),
            plain,
        )
        if partial is None:
            yield self.row(metric, math.nan, 0, method="partial", reason=_NO_FREQUENCY, **columns), None
        else:
            ends = partial.interval
            yield (
                self.row(metric, partial.value, count, method="partial", interval=ends, reason=reason, **columns),
                None,
            )
        few = slice(0, _NULL_TOKENS)
        columns["method"] = "pearson"
        for kind in controls:
            if orders := self.orders(kind, places[few]):
                draws = shuffled_similarities(x[few], y[few], orders, centred=centred)
                yield from ((row, None) for row in self.null(metric, list(draws), control=kind, **columns))

    def cloud_null(self, x: Tensor, y: Tensor, coords: Mapping[str, str], *, centred: bool) -> Iterator[Record]:
        """Similarity to Gaussian clouds in place of the other model."""
        few, here = slice(0, _NULL_TOKENS), [torch.arange(min(len(x), _NULL_TOKENS))]
        clouds = (gaussian_cloud(y[few], seed=self.settings.seed + draw) for draw in range(self.settings.nulls))
        draws = [shuffled_similarities(x[few], cloud, here, centred=centred)[0] for cloud in clouds]
        yield from self.null("embedding_similarity", draws, method="pearson", control="gaussian", coords=coords)

    def local_rows(self, a: SpaceGeometry, b: SpaceGeometry) -> Iterator[Record]:
        """Weights of locally linear embeddings and overlap of neighbours; no mean is removed, since it cancels."""
        both = ((a.near >= 0).all(1) & (b.near >= 0).all(1)).nonzero()[:, 0]
        coords = {"k": str(self.settings.neighbours)}
        if len(both) < FEWEST_TOKENS:
            yield self.row("local_similarity", math.nan, 0, method="lle", reason=_FEW_TOKENS, coords=coords)
            return
        near_a, near_b, own, theirs = a.near[both], b.near[both], a.weights[both], b.weights[both]
        for metric, method, values in (
            ("local_similarity", "lle", weight_cosines(near_a, own, near_b, theirs)),
            ("neighbour_overlap", None, neighbour_overlap(near_a, near_b)),
        ):
            ends = mean_interval(values)
            yield self.row(metric, float(values.mean()), len(values), method=method, interval=ends, coords=coords)
        everywhere = torch.arange(len(self.tokens))
        for kind in _SHUFFLES:
            cosines, overlaps = [], []
            for query, name in zip(self.orders(kind, both), self.orders(kind, everywhere), strict=True):
                moved = name[near_b[query]]
                cosines.append(weight_cosines(near_a, own, moved, theirs[query]).mean())
                overlaps.append(neighbour_overlap(near_a, moved).mean())
            yield from self.null("local_similarity", cosines, method="lle", control=kind, coords=coords)
            yield from self.null("neighbour_overlap", overlaps, control=kind, coords=coords)

    def dimension_rows(self, a: SpaceGeometry, b: SpaceGeometry) -> Iterator[Record]:
        """Correlation of the local dimensions of tokens."""
        both = ((a.dimensions > 0) & (b.dimensions > 0)).nonzero()[:, 0]
        if len(both) < FEWEST_TOKENS:
            yield self.row("dimension_similarity", math.nan, 0, method="pearson", reason=_FEW_TOKENS)
            return
        x, y = a.dimensions[both].double(), b.dimensions[both].double()
        frequency = None if self.tokens.log_frequency is None else self.tokens.log_frequency[both].double()
        measured = {"pearson": correlate(x, y)}
        if frequency is None:
            yield self.row("dimension_similarity", math.nan, 0, method="partial", reason=_NO_FREQUENCY)
        else:
            measured["partial"] = correlate(x, y, frequency_bins(frequency))
        for method, one in measured.items():
            columns: dict[str, Any] = {"method": method, "reason": "all dimensions are equal"}
            yield self.row("dimension_similarity", one.value, len(both), interval=one.interval, **columns)
        for kind in _SHUFFLES:
            draws = [correlate(x, y[order]).value for order in self.orders(kind, both)]
            known = [torch.tensor(value) for value in draws if math.isfinite(value)]
            yield from self.null("dimension_similarity", known, method="pearson", control=kind)

    def hidden_rows(self, one: Tensor, other: Tensor, places: TokenPlaces) -> Iterator[Record]:
        """Similarity of the hidden states at each layer and the layer of the same relative depth."""
        layers, others = len(one) - 1, len(other) - 1
        controls: tuple[ShuffleKind, ...] = (
            ("shuffled",) if self.tokens.log_frequency is None else ("frequency_matched",)
        )
        for layer, states in enumerate(one):
            depth = layer / max(layers, 1)
            opposite = round(depth * others)
            for form, centred in FORMS.items():
                coords = {"form": form, "depth": f"{depth:.3g}", "other_site": f"resid.{opposite}"}
                for record, _ in self.similarity_rows(
                    "hidden_similarity",
                    states,
                    other[opposite],
                    places.tokens,
                    coords,
                    centred=centred,
                    site=Site("resid", layer),
                    controls=controls,
                ):
                    yield record
