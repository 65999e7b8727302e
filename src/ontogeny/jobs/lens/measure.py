"""Measure the lenses of one checkpoint: each text is scored by a lens that was fitted on the other half of the texts."""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.jobs.lens.plan import LensSettings
from ontogeny.lenses import (
    Lens,
    LensScores,
    TextStreams,
    fit_jacobian_lens,
    fit_tuned_lens,
    logit_lens,
    read_streams,
    readable_texts,
    score_lens,
)
from ontogeny.lenses.readout import DEGENERATE_SHARE, unembedding_rank
from ontogeny.models.model import Model
from ontogeny.records import Record, make_record
from ontogeny.sites import Site
from ontogeny.statistics import cross_fitting

_METRICS = {"lens_agreement": "agrees", "lens_kl": "divergence", "lens_surprise": "surprise"}


def lens_rows(model: Model, texts: Sequence[str], settings: LensSettings) -> list[Record]:
    """Rows of all lenses at all layers, with intervals over texts."""
    # A text that is too short has no number in the streams, so it must not count for the halves either.
    texts = readable_texts(model, texts, most_tokens=settings.most_tokens)
    streams = read_streams(model, texts, most_tokens=settings.most_tokens)
    halves = [streams.text % 2 == side for side in (0, 1)]
    rows = list(_rank_rows(model, streams, settings.seed))
    for kind in settings.lenses:
        lenses = [_fit(kind, model, texts, streams, side, settings) for side in (0, 1)]
        held_out = _scores(model, streams, lenses, halves, own=False)
        own = held_out if kind == "logit" else _scores(model, streams, lenses, halves, own=True)
        rows += _score_rows(kind, model, streams, held_out, settings.seed)
        if kind != "logit":
            rows += _corpus_rows(kind, model, streams, held_out, own, settings.seed)
    return rows


def _fit(
    kind: str, model: Model, texts: Sequence[str], streams: TextStreams, side: int, settings: LensSettings
) -> Lens:
    """The lens that is fitted on one half of the texts."""
    if kind == "logit":
        return logit_lens()
    if kind == "jacobian":
        inside = [text for number, text in enumerate(texts) if number % 2 == side]
        return fit_jacobian_lens(model, inside, most_texts=settings.jacobian_texts, most_tokens=settings.most_tokens)
    numbers = [number for number in streams.text.unique().tolist() if number % 2 == side]
    return fit_tuned_lens(model, streams.of_texts(numbers), steps=settings.tuned_steps, seed=settings.seed)


def _scores(
    model: Model, streams: TextStreams, lenses: Sequence[Lens], halves: Sequence[Tensor], *, own: bool
) -> LensScores:
    """Scores of all tokens, by the lens of the other half, or by that of their `own`."""
    found: dict[str, Tensor] = {}
    for side, inside in enumerate(halves):
        place = inside.nonzero()[:, 0]
        part = TextStreams(streams.states[:, place], streams.text[place], streams.following[place])
        scores = score_lens(model, part, lenses[side if own else 1 - side])
        for name in _METRICS.values():
            values = getattr(scores, name)
            found.setdefault(name, values.new_empty(len(values), len(streams.text)))[:, place.cpu()] = values
    return LensScores(**found)


def _score_rows(kind: str, model: Model, streams: TextStreams, scores: LensScores, seed: int) -> Iterator[Record]:
    for metric, name in _METRICS.items():
        values = getattr(scores, name)
        yield from _mean_rows(metric, kind, model, streams, values, seed, share=metric == "lens_agreement")


def _corpus_rows(
    kind: str, model: Model, streams: TextStreams, held_out: LensScores, own: LensScores, seed: int
) -> Iterator[Record]:
    """How much better a lens reads the texts that it was fitted on."""
    error = held_out.divergence - own.divergence
    return _mean_rows("lens_corpus_error", kind, model, streams, error, seed, share=False)


def _mean_rows(
    metric: str,
    kind: str,
    model: Model,
    streams: TextStreams,
    values: Float[Tensor, "layer token"],
    seed: int,
    *,
    share: bool,
) -> Iterator[Record]:
    """Means over tokens with t-intervals over texts."""
    known = ~values.isnan().any(0)
    values, text = values[:, known].double(), streams.text[known.to(streams.text.device)].cpu()
    groups = len(text.unique())
    if groups < 2:
        return
    result = cross_fitting.cross_fit_mean(values)
    variance = cross_fitting.group_variance(result.influence, text)
    ends = cross_fitting.cross_fit_interval(result.value, variance, torch.zeros(len(values)), share=share)
    for layer, (value, low, high) in enumerate(
        zip(result.value.tolist(), ends.low.tolist(), ends.high.tolist(), strict=True)
    ):
        yield make_record(
            metric,
            value,
            n=len(text),
            site=Site("resid", layer),
            interval=(low, high),
            method=kind,
            split="test",
            seed=seed,
            coords={"texts": str(groups)},
        )


def _rank_rows(model: Model, streams: TextStreams, seed: int) -> Iterator[Record]:
    """Effective rank of the unembedding rows of the tokens that the texts hold, with a note where it is degenerate."""
    tokens = sorted(set(streams.following.tolist()) - {-1})
    if len(tokens) < 2:
        return
    rank = unembedding_rank(model, tokens)
    note = None
    if rank.is_degenerate:
        note = f"degenerate: at least {DEGENERATE_SHARE:.0%} of the variance lies in one dimension, so no lens tells these tokens apart"
    for metric, value in (("unembedding_rank", rank.effective_rank), ("unembedding_first_share", rank.first_share)):
        reason = "the rows are equal" if math.isnan(value) else None
        yield make_record(metric, value, n=rank.tokens, note=note, reason=reason, seed=seed)
