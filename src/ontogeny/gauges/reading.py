"""Reading of gauges on a conversation: after each of the user's turns, and at every token, with two controls.

One control reads the user's last words without the chat template. The other is how far the scores of random directions of equal length
move over the same tokens: a gauge that moves no further than they do shows nothing about the conversation.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot, pad

from ontogeny.activations.batching import ActivationRead, Workload
from ontogeny.activations.capture import capture_workload
from ontogeny.data.positions import Encoding, Position
from ontogeny.data.templates import Template
from ontogeny.data.tokenization import encode_texts
from ontogeny.direction import random_unit_vector
from ontogeny.errors import BadInput
from ontogeny.gauges.conversation import EncodedConversation, encode_with_suffix
from ontogeny.gauges.gauge import CalibratedProbe, Gauge, gauge_state
from ontogeny.measurements.token_scores import token_texts
from ontogeny.models.model import Model, site_width, tokenizer_fingerprint
from ontogeny.sites import Site

RANDOM_DIRECTIONS = 199


@dataclass(frozen=True)
class GaugeReading:
    """One gauge at one place."""

    state: str
    """`read`, `unknown` or `off distribution`."""
    probabilities: tuple[float, ...]
    """Of the classes, in their order."""
    score: float
    """Of the positive class; of several classes that of the likeliest."""
    typicality: float
    """The largest p over the classes that a draw of the class lies as far from its mean."""


@dataclass(frozen=True, eq=False)
class ReadGauge:
    """One gauge on a whole conversation; nothing is read if it is not readable, and `reason` says why."""

    gauge: Gauge
    turns: tuple[GaugeReading, ...]
    """After each of the user's turns."""
    bare: GaugeReading | None
    """Control: the last user's words without the chat template; None if the position does not exist there."""
    moved: float
    """Score at the last reading minus its mean over the conversation's tokens."""
    random_moved: float
    """The same for random directions of equal length: the 95 % quantile of its size."""
    random_p: float
    """Share of random directions that moved as far, the gauge itself counted."""
    tokens: Float[Tensor, " token"]
    """Score at every token of the conversation; the probe was fitted at its own position, so that these are an extrapolation."""
    reason: str


@dataclass(frozen=True, eq=False)
class ConversationReading:
    """All gauges on a conversation."""

    tokens: tuple[str, ...]
    """Text of each token of the conversation in its template."""
    gauges: tuple[ReadGauge, ...]


@dataclass(frozen=True, eq=False)
class _Read:
    """Where one gauge is read: a sequence with weights over its tokens."""

    encoding: Encoding
    weights: Float[Tensor, " token"]


@dataclass(frozen=True, eq=False)
class _Places:
    """Where a gauge is read."""

    probe: CalibratedProbe
    site: Site
    turns: list[_Read]
    """After each of the user's turns."""
    bare: list[_Read]
    """The user's last words without the template, or nothing."""


@dataclass(frozen=True, eq=False)
class _Activations:
    """Reading of one gauge."""

    tokens: Float[Tensor, "token d"]
    turns: Float[Tensor, "turn d"]
    bare: Float[Tensor, "read d"]


def read_conversation(
    model: Model, conversation: EncodedConversation, gauges: Sequence[Gauge], template: Template
) -> ConversationReading:
    """Read gauges after each of the user's turns of a conversation, and at every token of it.

    Args:
        model: The model of the gauges' checkpoint.
        conversation: From `encode_conversation`, in the same template.
        gauges: From `make_gauge`.
        template: The chat template.

    Raises:
        BadInput: the conversation cannot be read; what only one gauge cannot read is the reason of that gauge.
    """
    whole = conversation.whole
    texts, fingerprint = token_texts(model, whole), tokenizer_fingerprint(model)
    unread = {number: why_unread(model, gauge, fingerprint) for number, gauge in enumerate(gauges)}
    places: dict[int, _Places] = {}
    for number, gauge in enumerate(gauges):
        if gauge.probe is not None and gauge.site is not None and not unread[number]:
            try:
                places[number] = _places(model, conversation, gauge, gauge.probe, gauge.site, template)
            except BadInput as error:
                unread[number] = str(error)
    captured = _capture(model, whole, list(places.values()))
    found = {
        number: _read_gauge(gauges[number], place.probe, x)
        for (number, place), x in zip(places.items(), captured, strict=True)
    }
    nothing = torch.full((len(texts),), math.nan)
    readings = (
        found.get(number) or ReadGauge(gauge, (), None, math.nan, math.nan, math.nan, nothing, unread[number])
        for number, gauge in enumerate(gauges)
    )
    return ConversationReading(texts, tuple(readings))


def why_unread(model: Model, gauge: Gauge, fingerprint: str) -> str:
    """Why a gauge cannot be read in a model whose tokenizer has this fingerprint; "" if it can."""
    if gauge.probe is not None and gauge.tokenizer and gauge.tokenizer != fingerprint:
        return "its probe was fitted with another tokenizer"
    if gauge.probe is not None and gauge.site is not None:
        width = site_width(model, gauge.site) if gauge.site.layer <= model.layers else 0
        if width != len(gauge.probe.weight):
            return "its probe was fitted on a model of another width or depth"
    return gauge.reason


def _places(
    model: Model,
    conversation: EncodedConversation,
    gauge: Gauge,
    probe: CalibratedProbe,
    site: Site,
    template: Template,
) -> _Places:
    position, suffix = Position.parse(gauge.position), gauge.label.suffix
    encodings: list[Encoding] = list(conversation.prefixes)
    if suffix:
        ends = range(1, len(conversation.chat) + 1, 2)
        encodings = [encode_with_suffix(model, conversation.chat[:end], suffix, template) for end in ends]
    if len(encodings[-1].ids) > model.context:
        raise BadInput(
            f"with the begun answer the conversation has {len(encodings[-1].ids)} tokens, and the context has {model.context}"
        )
    turns = [_Read(encoding, position.weights(encoding)) for encoding in encodings]
    try:
        (encoding,) = encode_texts(model.tokenizer, [conversation.chat[-1][1]], [None])
        bare = [_Read(encoding, position.weights(encoding))] if len(encoding.ids) <= model.context else []
    except BadInput:  # a position that only a template has
        bare = []
    return _Places(probe, site, turns, bare)


def _capture(model: Model, whole: Encoding, places: Sequence[_Places]) -> list[_Activations]:
    """Activations at every token of the conversation and at the places of each gauge, in one pass."""
    if not places:
        return []
    tokens = [_Read(whole, one_hot(torch.tensor(i), len(whole.ids)).float()) for i in range(len(whole.ids))]
    sequences: dict[tuple[int, ...], int] = {}
    reads = []
    everything = tuple(whole.ids.tolist())
    for read in (*tokens, *(read for place in places for read in (*place.turns, *place.bare))):
        key, weights = tuple(read.encoding.ids.tolist()), read.weights
        if key == everything[: len(key)]:  # no token of a causal model sees what follows
            key, weights = everything, pad(weights, (0, len(everything) - len(key)))
        reads.append(ActivationRead(sequences.setdefault(key, len(sequences)), weights))
    captured = capture_workload(
        model, Workload(tuple(sequences), tuple(reads)), sorted({place.site for place in places})
    )
    activations, start = [], len(tokens)
    for place in places:
        site = place.site
        x = captured.parts[site.part][captured.sites[site.part].index(site)].float().cpu()
        middle, end = start + len(place.turns), start + len(place.turns) + len(place.bare)
        activations.append(_Activations(x[: len(tokens)], x[start:middle], x[middle:end]))
        start = end
    return activations


def _read_gauge(gauge: Gauge, probe: CalibratedProbe, x: _Activations) -> ReadGauge:
    readings = calibrated_readings(probe, probe.scores(torch.cat([x.turns, x.bare])))
    turns, bare = readings[: len(x.turns)], readings[len(x.turns) :]
    scores, last = probe.scores(x.tokens), turns[-1].probabilities
    column = last.index(max(last)) if scores.shape[1] > 1 else 0
    weight, difference = probe.weight[:, column], x.turns[-1] - x.tokens.mean(0)
    moved = float(difference @ weight)
    sizes = (_random_axes(len(weight)) @ difference).abs() * weight.norm()
    p = float((1 + (sizes >= abs(moved)).sum()) / (1 + RANDOM_DIRECTIONS))
    control = bare[0] if bare else None
    return ReadGauge(gauge, turns, control, moved, float(sizes.quantile(0.95)), p, scores[:, column], "")


@functools.lru_cache(maxsize=8)
def _random_axes(width: int) -> Float[Tensor, "axis d"]:
    return torch.stack([random_unit_vector(width, seed) for seed in range(RANDOM_DIRECTIONS)])


def calibrated_readings(probe: CalibratedProbe, scores: Float[Tensor, "read k"]) -> tuple[GaugeReading, ...]:
    """Calibrated readings of the scores of a probe."""
    shares = probe.calibration.probabilities(scores).tolist()
    readings = []
    for score, share, typicality in zip(scores.tolist(), shares, probe.typicality(scores).tolist(), strict=True):
        column = share.index(max(share)) if len(score) > 1 else 0
        readings.append(GaugeReading(gauge_state(share, typicality), tuple(share), score[column], typicality))
    return tuple(readings)
