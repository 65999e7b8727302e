"""Claims of the study of the geometry of attention."""

from ontogeny.activations.head_layouts import DISTANCES
from ontogeny.activations.patch_labels import PATCH_LABELS
from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Event, Quantity
from ontogeny.claims.shapes import EventOrder, Separation

MOVED_AND_SCALED, MOVED, SCALED, PERMUTED = DISTANCES
BEST, COMPARED = "best head", "compared"
HEAD_METRICS = ("previous_token", "induction", "first_token", "position_share", "spiral")
"""Scores of heads over training."""
_PAPER = "arXiv:2305.03210"
_FORMED = 0.3
"""Attention from which a head has formed."""


def _tracks(condition: str) -> Quantity:
    return Quantity("distance_tracks", condition)


def _head(
    metric: str, name: str, text: str, reported: str, unit: str, threshold: float = 0.1, null: str = "untrained"
) -> Claim:
    shape = Separation(
        Quantity(f"{metric}_end", BEST), Quantity(f"{metric}_end", COMPARED), threshold=threshold, unit=unit
    )
    return Claim(name, text, f"{_PAPER}, section 6", reported, shape, null)


def _before(first: Event, second: Event, name: str, text: str, source: str = "") -> Claim:
    cited = f"not in {_PAPER}, which reads one checkpoint{source}"
    return Claim(name, text, cited, "not measured", EventOrder(first, second), "same_curve")


def _half_way(metric: str) -> Event:
    return Event(Quantity(metric, BEST), 0.5, relative=True)


CLAIMS = (
    Claim(
        "near_means_attended",
        "After the published move and scale, distances of queries and keys follow their dot product: minus the correlation is above that "
        "of permuted pairs by more than a half.",
        f"{_PAPER}, section 4",
        "correlation near −1",
        Separation(_tracks(MOVED_AND_SCALED), _tracks(PERMUTED), threshold=0.5, unit="correlation, times −1"),
        "permuted_pairs",
    ),
    Claim(
        "moving_helps",
        "Moving the keys onto the queries brings the correlation nearer to −1.",
        f"{_PAPER}, section 4",
        "queries and keys lie apart otherwise",
        Separation(_tracks(MOVED_AND_SCALED), _tracks(SCALED), unit="correlation, times −1"),
        "permuted_pairs",
    ),
    Claim(
        "scaling_helps",
        "Scaling queries and keys to one mean norm brings it nearer to −1.",
        f"{_PAPER}, section 4",
        "a scale is chosen to bring the correlation near to −1",
        Separation(_tracks(MOVED_AND_SCALED), _tracks(MOVED), unit="correlation, times −1"),
        "permuted_pairs",
    ),
    _head(
        "position_share",
        "position_heads",
        "In some head a line and waves over the position explain the queries or keys, beyond shuffled positions.",
        "spirals in position heads",
        "share of the variance",
    ),
    _head(
        "spiral",
        "paths_wind_steadily",
        "In some head the path of mean queries or keys by position winds around its centre, more steadily than with shuffled positions.",
        "spirals",
        "net over total turning",
    ),
    _head(
        "first_token",
        "attention_sink",
        "Some head attends to the first token more than to the second.",
        "null attention to the first token",
        "attention",
    ),
    _head(
        "sink_norm",
        "sink_has_an_outlying_key",
        "In that head the norm of the first token's key is further from the others' than that of the second.",
        "outliers in the norms of keys",
        "doublings",
        threshold=0.0,
    ),
    _head(
        "previous_token",
        "previous_token_head",
        "Some head attends to the previous token more than to the one before it.",
        "traces of previous-token heads",
        "attention",
    ),
    _head(
        "induction",
        "induction_head",
        "Some head attends to the token after an earlier equal one more than to the equal one.",
        "induction-like heads",
        "attention",
    ),
    _before(
        Event(Quantity("previous_token", BEST), _FORMED),
        Event(Quantity("induction", BEST), _FORMED),
        "previous_token_before_induction",
        "Over training the previous-token head has an attention of .3 before the induction head has.",
        "; arXiv:2209.11895",
    ),
    _before(
        _half_way("spiral"),
        _half_way("first_token"),
        "spiral_before_sink",
        "Over training the spiral is half formed before the first token has half of its attention.",
    ),
    *(
        Claim(
            f"keyed_on_{label}",
            f"In an image model, training makes some head whose queries or keys are laid out by the {label} of the patch.",
            f"{_PAPER}, section 6",
            "heads keyed on rows, columns, hue and brightness",
            Separation(
                Quantity("label_share", f"{label}, trained"),
                Quantity("label_share", f"{label}, untrained"),
                threshold=0.05,
                unit="share of the variance beyond shuffled labels",
            ),
            "shuffled_labels",
        )
        for label in PATCH_LABELS
    ),
)
