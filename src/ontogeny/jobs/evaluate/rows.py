"""Rows of an evaluation: effects with nulls and intervals, grid, side effects, items, samples (listed in docs/records.md)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ontogeny.jobs.evaluate.grid_search import GridCell
from ontogeny.jobs.evaluate.margins import mean_with_interval, share_with_interval
from ontogeny.jobs.evaluate.measure import EvaluationResult, MethodResult
from ontogeny.jobs.evaluate.removal import removal_rows
from ontogeny.records import Record, make_record
from ontogeny.sites import Site
from ontogeny.steering.controls import EffectWithControls
from ontogeny.steering.promote_suppress import promote_suppress
from ontogeny.steering.text_scorers import TextScorer
from ontogeny.tasks.contrast_items import item_group_ids
from ontogeny.tasks.truthfulqa_mc import MultipleChoiceScores

FITTED_ON_TEST = "fitted on all groups, those of the test questions too"
"""In the note of the choice, where it is so."""


def evaluation_rows(
    result: EvaluationResult, *, scorers: Sequence[TextScorer] = (), seed: int = 0, has_siblings: bool = False
) -> list[Record]:
    """All rows of one concept at one checkpoint; with siblings along a data-mix axis also those of what is removed."""
    groups = item_group_ids(result.splits.test)
    prompt_shift = mean_with_interval(result.prompt_shift, groups, seed=seed)
    text = {"text": result.instruction[:200]}
    rows = [
        *(row for method in result.methods for row in _method_rows(result, method, seed)),
        _row("steering_effect", "prompt", prompt_shift, len(groups), "prompt_only", coords=text),
        *_sample_rows(result),
        *_text_score_rows(result, scorers),
        *(row for method in result.methods * has_siblings for row in removal_rows(method, groups, seed=seed)),
    ]
    return [replace(row, concept=result.concept.name, seed=seed) for row in rows]


def _method_rows(result: EvaluationResult, method: MethodResult, seed: int) -> Iterator[Record]:
    name, groups, chosen = method.method, item_group_ids(result.splits.test), method.grid.chosen
    choice = {method.choice_axis: chosen.choice}
    source = ", ".join([method.origin] * bool(method.origin) + [FITTED_ON_TEST] * method.is_fitted_on_test)
    note = f"{source}{': ' * bool(source)}chosen by the {method.grid.note}"
    yield _row("chosen_alpha", name, chosen.alpha, len(chosen.shift), coords=choice, note=note)
    for cell in method.grid.cells:
        yield from _grid_cell_rows(result, method, cell, seed)
    note = "no edit: bit for bit the unsteered model"
    yield _row("steering_effect", name, (0.0, 0.0, 0.0), len(groups), coords={**choice, "alpha": "0"}, note=note)
    for effect in method.dose_response:
        coords = {**choice, "alpha": f"{effect.alpha:g}"}
        shift = mean_with_interval(effect.shift, groups, seed=seed)
        yield _row("steering_effect", name, shift, len(groups), coords=coords)
        yield _null_row(name, effect.random, "random_direction", coords)
        if (permuted := effect.permuted_labels) is not None:
            yield _null_row(name, permuted, "shuffled_label", coords)
            yield _row("steering_p", name, permuted.p, len(permuted.controls), "shuffled_label", coords=coords)
        yield _row("steering_p", name, effect.random.p, len(effect.random.controls), coords=coords)
    coords = {**choice, "alpha": f"{chosen.alpha:g}"}
    yield from _promote_suppress_rows(result, method, coords, seed)
    yield from _multiple_choice_rows(method, groups, coords, seed)
    yield from _side_effect_rows(method, coords, seed)
    if isinstance(method.at_equal_kl, str):
        yield _row("effect_at_equal_kl", name, math.nan, 0, coords=choice, note=method.at_equal_kl)
    elif method.at_equal_kl is not None:
        target, alpha, shifts = method.at_equal_kl
        coords = {**choice, "alpha": f"{alpha:.4g}", "kl": f"{target:.4g}"}
        shift = mean_with_interval(shifts, groups, seed=seed)
        yield _row("effect_at_equal_kl", name, shift, len(groups), coords=coords)
        if method.nulls_at_equal_kl is not None:
            random = method.nulls_at_equal_kl.random
            yield replace(_null_row(name, random, "random_direction", coords), metric="effect_at_equal_kl")


def _grid_cell_rows(result: EvaluationResult, method: MethodResult, cell: GridCell, seed: int) -> Iterator[Record]:
    coords = {method.choice_axis: cell.choice, "alpha": f"{cell.alpha:g}"}
    groups = item_group_ids(result.splits.development)
    effect = mean_with_interval(cell.shift, groups, seed=seed) if cell.alpha else (0.0, 0.0, 0.0)
    yield _row("steering_effect", method.method, effect, len(groups), split="development", coords=coords)
    texts = torch.arange(len(cell.divergence))
    kl = mean_with_interval(cell.divergence, texts, seed=seed) if cell.alpha and len(texts) > 1 else cell.cost
    yield _row("neutral_kl", method.method, kl, len(texts), split="all", coords=coords, note=result.neutral)


def _null_row(method: str, effect: EffectWithControls, control: str, coords: Mapping[str, str]) -> Record:
    interval = (float(effect.controls.mean()), effect.low, effect.high)
    return _row("steering_effect", method, interval, len(effect.controls), control, coords=coords)


def _promote_suppress_rows(
    result: EvaluationResult, method: MethodResult, coords: Mapping[str, str], seed: int
) -> Iterator[Record]:
    """Nats per token gained and lost where the unsteered model needs it most, and the items themselves."""
    items, name = result.splits.test, method.method
    prompts = [item.group for item in items]
    matching = torch.tensor([True] * len(items) + [False] * len(items))
    base, steered = (side.T.flatten() for side in (method.base, method.steered))
    for one in promote_suppress(base, steered, matching, [*prompts, *prompts], seed=seed):
        for metric, value in (("promote", one.promote), ("suppress", one.suppress)):
            yield _row(metric, name, value, len(items), coords={**coords, "share": f"{one.share:g}"})
    for i, item in enumerate(items):
        for side, (label, text) in enumerate((("matching", item.matching), ("other", item.other))):
            at = {**coords, "item": str(i), "side": label, "prompt": item.prompt[:120], "text": text[:120]}
            yield _row("item_nats", name, float(method.base[i, side]), 1, "unsteered", coords=at)
            yield _row("item_nats", name, float(method.steered[i, side]), 1, coords=at)


def _multiple_choice_rows(
    method: MethodResult, groups: Tensor, coords: Mapping[str, str], seed: int
) -> Iterator[Record]:
    """MC1 and MC2 of two answers: the continuation that shows the concept, and the other one."""
    for margin, control in zip(method.margins, ("unsteered", None), strict=True):
        scores = MultipleChoiceScores.from_margins(margin, margin)
        for metric, values in (("mc1", scores.mc1), ("mc2", scores.mc2)):
            value = share_with_interval(values, groups, seed)
            yield _row(metric, method.method, value, len(values), control, coords=coords)


def _side_effect_rows(method: MethodResult, coords: Mapping[str, str], seed: int) -> Iterator[Record]:
    name, cost = method.method, method.side_effects.cost
    texts = torch.arange(len(cost.before))
    if len(texts) > 1:
        for metric, values, control in (
            ("neutral_ce", cost.before, "unsteered"),
            ("neutral_ce", cost.after, None),
            ("neutral_ce_rise", cost.after - cost.before, None),
        ):
            value = mean_with_interval(values, texts, seed=seed)
            yield _row(metric, name, value, len(texts), control, split="all", coords=coords)
    for task, (plain, steered) in method.side_effects.tasks.items():
        at, questions = {**coords, "task": task}, torch.arange(len(plain.plain))
        if len(questions) < 2:
            continue
        for metric, before, after in (
            ("task_accuracy", plain.plain, steered.plain),
            ("task_accuracy_normalised", plain.normalised, steered.normalised),
        ):
            for values, control in ((before, "unsteered"), (after, None)):
                value = share_with_interval(values, questions, seed)
                yield _row(metric, name, value, len(questions), control, split="all", coords=at)
        change = mean_with_interval(steered.plain - plain.plain, questions, seed=seed)
        yield _row("task_change", name, change, len(questions), split="all", coords=at)


def _sample_rows(result: EvaluationResult) -> Iterator[Record]:
    for sample in result.samples:
        alpha = {} if sample.alpha is None else {"alpha": f"{sample.alpha:g}"}
        coords = {"prompt": sample.prompt, "arm": sample.arm, "text": sample.text, **alpha}
        note = None if sample.tokens else "nothing was said"
        yield _row("sample_surprise", sample.arm, sample.surprise, sample.tokens, split="all", coords=coords, note=note)
    for arm, share in result.distinct.items():
        note = "no text of two tokens" if math.isnan(share) else None
        yield _row("distinct_2", arm, share, len(result.samples), split="all", coords={"arm": arm}, note=note)


def _text_score_rows(result: EvaluationResult, scorers: Sequence[TextScorer]) -> Iterator[Record]:
    for scorer in scorers:
        coords = {"scorer": scorer.name}
        if scorer.n:
            yield _row("scorer_accuracy", scorer.name, scorer.accuracy, scorer.n, coords=coords)
        for arm in dict.fromkeys(sample.arm for sample in result.samples):
            values = torch.tensor(scorer.score([s.text for s in result.samples if s.arm == arm])).double()
            texts = torch.arange(len(values))
            value = mean_with_interval(values, texts) if len(values) > 1 else float(values[0])
            yield _row("scored_share", scorer.name, value, len(values), split="all", coords={**coords, "arm": arm})


def _row(
    metric: str,
    method: str,
    value: float | tuple[float, float, float],
    n: int,
    control: str | None = None,
    *,
    coords: Mapping[str, str],
    split: str = "test",
    note: str | None = None,
) -> Record:
    """A row; `value` may carry the ends of its interval."""
    point, low, high = value if isinstance(value, tuple) else (value, math.nan, math.nan)
    return make_record(
        metric,
        point,
        interval=(low, high),
        n=n,
        site=Site.parse(coords["site"]) if "site" in coords else None,
        note=note,
        reason=note or "not measured",
        method=method,
        control=control,
        split=split,
        coords=coords,
    )
