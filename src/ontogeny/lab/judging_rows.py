"""The rows of an evaluation: effects with their nulls and intervals, the grid, side effects, items, samples; docs/records.md names each."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.lab.against_controls import Effect
from ontogeny.lab.asked import mean_with_ends
from ontogeny.lab.evaluation import promote_suppress
from ontogeny.lab.items import group_numbers
from ontogeny.lab.judging import Found, Judged
from ontogeny.lab.scorers import Scorer
from ontogeny.lab.selection import Cell
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics import bootstrap


def rows(found: Found, *, scorers: Sequence[Scorer] = (), seed: int = 0) -> list[Record]:
    """All rows of one concept at one checkpoint."""
    made = [row for judged in found.judged for row in _of_method(found, judged, seed)]
    groups = group_numbers(found.sides.test)
    value = mean_with_ends(found.prompt_shift, groups, seed=seed)
    told = {"text": found.instruction[:200]}
    made.append(_row("steering_effect", "prompt", value, len(groups), "prompt_only", coords=told))
    made += [*_samples(found), *_scored(found, scorers)]
    return [replace(row, concept=found.concept.name, seed=seed) for row in made]


def _of_method(found: Found, judged: Judged, seed: int) -> Iterator[Record]:
    groups, chosen = group_numbers(found.sides.test), judged.grid.chosen
    at = _place(judged, chosen.choice)
    note = f"{judged.origin}{': ' * bool(judged.origin)}chosen by the {judged.grid.note}"
    yield replace(_row("chosen_alpha", judged.method, _alone(chosen.alpha), len(chosen.shift), coords=at), note=note)
    for cell in judged.grid.cells:
        yield from _of_cell(found, judged, cell, seed)
    zero = {**at, "alpha": "0"}
    free = _row("steering_effect", judged.method, (0.0, 0.0, 0.0), len(groups), coords=zero)
    yield replace(free, note="no edit: bit for bit the unsteered model")
    for one in judged.response:
        here = {**at, "alpha": f"{one.alpha:g}"}
        measured = mean_with_ends(one.shift, groups, seed=seed)
        yield _row("steering_effect", judged.method, measured, len(groups), coords=here)
        yield _null(judged, one.random, "random_direction", here)
        if one.shuffled is not None:
            yield _null(judged, one.shuffled, "shuffled_label", here)
            p = _alone(one.shuffled.p)
            yield _row("steering_p", judged.method, p, len(one.shuffled.controls), "shuffled_label", coords=here)
        yield _row("steering_p", judged.method, _alone(one.random.p), len(one.random.controls), coords=here)
    told = {**at, "alpha": f"{chosen.alpha:g}"}
    yield from _promoted(found, judged, told, seed)
    yield from _choices(judged, groups, told, seed)
    yield from _side_effects(judged, told, seed)
    if isinstance(judged.equal, str):
        lost = _row("effect_at_equal_kl", judged.method, _alone(math.nan), 0, coords=at)
        yield replace(lost, note=judged.equal)
    elif judged.equal is not None:
        target, alpha, shift = judged.equal
        coords = {**at, "alpha": f"{alpha:.4g}", "kl": f"{target:.4g}"}
        yield _row(
            "effect_at_equal_kl", judged.method, mean_with_ends(shift, groups, seed=seed), len(groups), coords=coords
        )


def _of_cell(found: Found, judged: Judged, cell: Cell, seed: int) -> Iterator[Record]:
    coords = {**_place(judged, cell.choice), "alpha": f"{cell.alpha:g}"}
    groups = group_numbers(found.sides.development)
    effect = mean_with_ends(cell.shift, groups, seed=seed) if cell.alpha else (0.0, 0.0, 0.0)
    yield _row("steering_effect", judged.method, effect, len(groups), split="development", coords=coords)
    texts = torch.arange(len(cell.divergence))
    cost = mean_with_ends(cell.divergence, texts, seed=seed) if cell.alpha and len(texts) > 1 else _alone(cell.cost)
    kl = _row("neutral_kl", judged.method, cost, len(texts), split="all", coords=coords)
    yield replace(kl, note=found.neutral)


def _null(judged: Judged, effect: Effect, control: str, coords: Mapping[str, str]) -> Record:
    ends = (float(effect.controls.mean()), effect.low, effect.high)
    return _row("steering_effect", judged.method, ends, len(effect.controls), control, coords=coords)


def _promoted(found: Found, judged: Judged, coords: Mapping[str, str], seed: int) -> Iterator[Record]:
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
            yield _row("item_nats", judged.method, _alone(float(judged.base[i, side])), 1, "unsteered", coords=told)
            yield _row("item_nats", judged.method, _alone(float(judged.steered[i, side])), 1, coords=told)


def _choices(judged: Judged, groups: Tensor, coords: Mapping[str, str], seed: int) -> Iterator[Record]:
    """MC1 and MC2 of two: is the continuation that shows the concept the likelier one, and by which share."""
    for margin, control in zip(judged.margins, ("unsteered", None), strict=True):
        for metric, values in (("mc1", (margin > 0).double()), ("mc2", margin.double().sigmoid())):
            yield _row(
                metric, judged.method, share_with_ends(values, groups, seed), len(values), control, coords=coords
            )


def _side_effects(judged: Judged, coords: Mapping[str, str], seed: int) -> Iterator[Record]:
    cost, method = judged.side.cost, judged.method
    texts = torch.arange(len(cost.before))
    if len(texts) > 1:
        for metric, values, control in (
            ("neutral_ce", cost.before, "unsteered"),
            ("neutral_ce", cost.after, None),
            ("neutral_ce_rise", cost.after - cost.before, None),
        ):
            value = mean_with_ends(values, texts, seed=seed)
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
                value = share_with_ends(values, each, seed)
                yield _row(metric, method, value, len(each), control, split="all", coords=told)
        change = mean_with_ends(steered.plain - plain.plain, each, seed=seed)
        yield _row("task_change", method, change, len(each), split="all", coords=told)


def _samples(found: Found) -> Iterator[Record]:
    for sample in found.samples:
        alpha = {} if sample.alpha is None else {"alpha": f"{sample.alpha:g}"}
        told = {"prompt": sample.prompt, "arm": sample.arm, "text": sample.text, **alpha}
        row = _row("sample_surprise", sample.arm, _alone(sample.surprise), sample.tokens, split="all", coords=told)
        yield row if sample.tokens else replace(row, note="nothing was said")
    for arm, share in found.distinct.items():
        n = 0 if math.isnan(share) else len(found.samples)
        row = _row("distinct_2", arm, _alone(share), n, split="all", coords={"arm": arm})
        yield row if n else replace(row, note="no text of two tokens")


def _scored(found: Found, scorers: Sequence[Scorer]) -> Iterator[Record]:
    for scorer in scorers:
        if scorer.n:
            told = {"scorer": scorer.name}
            yield _row("scorer_accuracy", scorer.name, _alone(scorer.accuracy), scorer.n, coords=told)
        for arm in dict.fromkeys(sample.arm for sample in found.samples):
            values = torch.tensor(scorer.score([s.text for s in found.samples if s.arm == arm])).double()
            told = {"scorer": scorer.name, "arm": arm}
            ends = mean_with_ends(values, torch.arange(len(values))) if len(values) > 1 else _alone(float(values[0]))
            yield _row("scored_share", scorer.name, ends, len(values), split="all", coords=told)


def share_with_ends(values: Float[Tensor, " item"], groups: Tensor, seed: int) -> tuple[float, float, float]:
    """Mean of shares between 0 and 1, with its 95 % interval by group."""
    weights = bootstrap.group_weights(groups, samples=1000, seed=seed)
    point, resampled = values.double().mean(), bootstrap.mean_samples(values.double()[None], weights)[:, 0]
    ends = bootstrap.share_interval(point, resampled, groups=len(groups.unique()))
    return float(point), float(ends.low), float(ends.high)


def _place(judged: Judged, choice: str) -> dict[str, str]:
    return {judged.choices: choice}


def _alone(value: float) -> tuple[float, float, float]:
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
    site = Site.parse(coords["site"]) if "site" in coords else None
    return Record(
        metric=metric,
        value=value[0],
        low=value[1],
        high=value[2],
        n=n,
        method=method,
        control=control,
        split=split,
        site=str(site) if site else None,
        layer=site.layer if site else None,
        head=site.head if site else None,
        note="not measured" if math.isnan(value[0]) else None,
        coords=coords,
    )
