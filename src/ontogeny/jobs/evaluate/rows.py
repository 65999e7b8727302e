"""The rows of an evaluation: effects with their nulls and intervals, the grid, side effects, items, samples; docs/records.md names each."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.jobs.evaluate.contrast_items import item_group_ids
from ontogeny.jobs.evaluate.grid_search import GridCell
from ontogeny.jobs.evaluate.margins import mean_with_interval
from ontogeny.jobs.evaluate.measure import EvaluationResult, MethodResult
from ontogeny.jobs.evaluate.promote_suppress import promote_suppress
from ontogeny.jobs.evaluate.text_scorers import TextScorer
from ontogeny.records import Record, make_record
from ontogeny.sites import Site
from ontogeny.statistics import bootstrap
from ontogeny.steering.controls import EffectWithControls


def evaluation_rows(found: EvaluationResult, *, scorers: Sequence[TextScorer] = (), seed: int = 0) -> list[Record]:
    """All rows of one concept at one checkpoint."""
    made = [row for judged in found.judged for row in _method_rows(found, judged, seed)]
    groups = item_group_ids(found.sides.test)
    value = mean_with_interval(found.prompt_shift, groups, seed=seed)
    told = {"text": found.instruction[:200]}
    made.append(_row("steering_effect", "prompt", value, len(groups), "prompt_only", coords=told))
    made += [*_samples(found), *_text_score_rows(found, scorers)]
    return [replace(row, concept=found.concept.name, seed=seed) for row in made]


def _method_rows(found: EvaluationResult, judged: MethodResult, seed: int) -> Iterator[Record]:
    groups, chosen = item_group_ids(found.sides.test), judged.grid.chosen
    at = _choice_coords(judged, chosen.choice)
    note = f"{judged.origin}{': ' * bool(judged.origin)}chosen by the {judged.grid.note}"
    yield replace(_row("chosen_alpha", judged.method, _point(chosen.alpha), len(chosen.shift), coords=at), note=note)
    for cell in judged.grid.cells:
        yield from _grid_cell_row(found, judged, cell, seed)
    zero = {**at, "alpha": "0"}
    free = _row("steering_effect", judged.method, (0.0, 0.0, 0.0), len(groups), coords=zero)
    yield replace(free, note="no edit: bit for bit the unsteered model")
    for one in judged.response:
        here = {**at, "alpha": f"{one.alpha:g}"}
        measured = mean_with_interval(one.shift, groups, seed=seed)
        yield _row("steering_effect", judged.method, measured, len(groups), coords=here)
        yield _null_rows(judged, one.random, "random_direction", here)
        if one.shuffled is not None:
            yield _null_rows(judged, one.shuffled, "shuffled_label", here)
            p = _point(one.shuffled.p)
            yield _row("steering_p", judged.method, p, len(one.shuffled.controls), "shuffled_label", coords=here)
        yield _row("steering_p", judged.method, _point(one.random.p), len(one.random.controls), coords=here)
    told = {**at, "alpha": f"{chosen.alpha:g}"}
    yield from _promote_suppress_rows(found, judged, told, seed)
    yield from _multiple_choice_rows(judged, groups, told, seed)
    yield from _side_effects(judged, told, seed)
    if isinstance(judged.equal, str):
        lost = _row("effect_at_equal_kl", judged.method, _point(math.nan), 0, coords=at)
        yield replace(lost, note=judged.equal)
    elif judged.equal is not None:
        target, alpha, shift = judged.equal
        coords = {**at, "alpha": f"{alpha:.4g}", "kl": f"{target:.4g}"}
        yield _row(
            "effect_at_equal_kl",
            judged.method,
            mean_with_interval(shift, groups, seed=seed),
            len(groups),
            coords=coords,
        )


def _grid_cell_row(found: EvaluationResult, judged: MethodResult, cell: GridCell, seed: int) -> Iterator[Record]:
    coords = {**_choice_coords(judged, cell.choice), "alpha": f"{cell.alpha:g}"}
    groups = item_group_ids(found.sides.development)
    effect = mean_with_interval(cell.shift, groups, seed=seed) if cell.alpha else (0.0, 0.0, 0.0)
    yield _row("steering_effect", judged.method, effect, len(groups), split="development", coords=coords)
    texts = torch.arange(len(cell.divergence))
    cost = mean_with_interval(cell.divergence, texts, seed=seed) if cell.alpha and len(texts) > 1 else _point(cell.cost)
    kl = _row("neutral_kl", judged.method, cost, len(texts), split="all", coords=coords)
    yield replace(kl, note=found.neutral)


def _null_rows(judged: MethodResult, effect: EffectWithControls, control: str, coords: Mapping[str, str]) -> Record:
    ends = (float(effect.controls.mean()), effect.low, effect.high)
    return _row("steering_effect", judged.method, ends, len(effect.controls), control, coords=coords)


def _promote_suppress_rows(
    found: EvaluationResult, judged: MethodResult, coords: Mapping[str, str], seed: int
) -> Iterator[Record]:
    """Nats per token gained and lost where the unsteered model needs it most, and the items themselves."""
    items = found.sides.test
    prompts = [item.group for item in items]
    matching = torch.tensor([True] * len(items) + [False] * len(items))
    base, steered = (side.T.flatten() for side in (judged.base, judged.steered))
    for one in promote_suppress(base, steered, matching, [*prompts, *prompts], seed=seed):
        for metric, value in (("promote", one.promote), ("suppress", one.suppress)):
            yield _row(metric, judged.method, value, len(items), coords={**coords, "share": f"{one.share:g}"})
    for i, item in enumerate(items):
        for side, (name, text) in enumerate((("matching", item.matching), ("other", item.other))):
            told = {**coords, "item": str(i), "side": name, "prompt": item.prompt[:120], "text": text[:120]}
            yield _row("item_nats", judged.method, _point(float(judged.base[i, side])), 1, "unsteered", coords=told)
            yield _row("item_nats", judged.method, _point(float(judged.steered[i, side])), 1, coords=told)


def _multiple_choice_rows(
    judged: MethodResult, groups: Tensor, coords: Mapping[str, str], seed: int
) -> Iterator[Record]:
    """MC1 and MC2 of two: is the continuation that shows the concept the likelier one, and by which share."""
    for margin, control in zip(judged.margins, ("unsteered", None), strict=True):
        for metric, values in (("mc1", (margin > 0).double()), ("mc2", margin.double().sigmoid())):
            yield _row(
                metric, judged.method, _share_with_interval(values, groups, seed), len(values), control, coords=coords
            )


def _side_effects(judged: MethodResult, coords: Mapping[str, str], seed: int) -> Iterator[Record]:
    cost, method = judged.side.cost, judged.method
    texts = torch.arange(len(cost.before))
    if len(texts) > 1:
        for metric, values, control in (
            ("neutral_ce", cost.before, "unsteered"),
            ("neutral_ce", cost.after, None),
            ("neutral_ce_rise", cost.after - cost.before, None),
        ):
            value = mean_with_interval(values, texts, seed=seed)
            yield _row(metric, method, value, len(texts), control, split="all", coords=coords)
    for task, (plain, steered) in judged.side.tasks.items():
        told, each = {**coords, "task": task}, torch.arange(len(plain.plain))
        if len(each) < 2:
            continue
        for metric, before, after in (
            ("task_accuracy", plain.plain, steered.plain),
            ("task_accuracy_normalised", plain.normalised, steered.normalised),
        ):
            for values, control in ((before, "unsteered"), (after, None)):
                value = _share_with_interval(values, each, seed)
                yield _row(metric, method, value, len(each), control, split="all", coords=told)
        change = mean_with_interval(steered.plain - plain.plain, each, seed=seed)
        yield _row("task_change", method, change, len(each), split="all", coords=told)


def _samples(found: EvaluationResult) -> Iterator[Record]:
    for sample in found.samples:
        alpha = {} if sample.alpha is None else {"alpha": f"{sample.alpha:g}"}
        told = {"prompt": sample.prompt, "arm": sample.arm, "text": sample.text, **alpha}
        row = _row("sample_surprise", sample.arm, _point(sample.surprise), sample.tokens, split="all", coords=told)
        yield row if sample.tokens else replace(row, note="nothing was said")
    for arm, share in found.distinct.items():
        n = 0 if math.isnan(share) else len(found.samples)
        row = _row("distinct_2", arm, _point(share), n, split="all", coords={"arm": arm})
        yield row if n else replace(row, note="no text of two tokens")


def _text_score_rows(found: EvaluationResult, scorers: Sequence[TextScorer]) -> Iterator[Record]:
    for scorer in scorers:
        if scorer.n:
            told = {"scorer": scorer.name}
            yield _row("scorer_accuracy", scorer.name, _point(scorer.accuracy), scorer.n, coords=told)
        for arm in dict.fromkeys(sample.arm for sample in found.samples):
            values = torch.tensor(scorer.score([s.text for s in found.samples if s.arm == arm])).double()
            told = {"scorer": scorer.name, "arm": arm}
            ends = (
                mean_with_interval(values, torch.arange(len(values))) if len(values) > 1 else _point(float(values[0]))
            )
            yield _row("scored_share", scorer.name, ends, len(values), split="all", coords=told)


def _share_with_interval(values: Float[Tensor, " item"], groups: Tensor, seed: int) -> tuple[float, float, float]:
    """Mean of shares between 0 and 1, with its 95 % interval by group."""
    weights = bootstrap.group_weights(groups, samples=1000, seed=seed)
    point, resampled = values.double().mean(), bootstrap.mean_samples(values.double()[None], weights)[:, 0]
    ends = bootstrap.share_interval(point, resampled, groups=len(groups.unique()))
    return float(point), float(ends.low), float(ends.high)


def _choice_coords(judged: MethodResult, choice: str) -> dict[str, str]:
    return {judged.choices: choice}


def _point(value: float) -> tuple[float, float, float]:
    return value, math.nan, math.nan


def _row(
    metric: str,
    method: str,
    value: tuple[float, float, float],
    n: int,
    control: str | None = None,
    *,
    split: str = "test",
    coords: Mapping[str, str],
) -> Record:
    return make_record(
        metric,
        value[0],
        interval=value[1:],
        n=n,
        site=Site.parse(coords["site"]) if "site" in coords else None,
        reason="not measured",
        method=method,
        control=control,
        split=split,
        coords=coords,
    )
