"""Rows of ablations after GRPO: verdicts flipped by heads and value vectors beside random ones, and what the model writes then."""

import math
from collections.abc import Iterator, Sequence

from ontogeny.models.model import Model
from ontogeny.patching.head_sets import Heads, SetEffect, ablate_head_set, zeroed_heads
from ontogeny.patching.unit_sets import Units, ablate_unit_set, zeroed_units
from ontogeny.records import Record
from ontogeny.statistics.control_tasks import random_directions
from ontogeny.steering.steer import Edit
from ontogeny.studies.self_verification._claims import GRPO, NULL_HEADS
from ontogeny.studies.self_verification._measures import Circuit, continuation_kinds, vector_margins, vector_tokens
from ontogeny.studies.self_verification._over_training import Bench

_QUANTILES = range(0, 101, 5)


def ablation_rows(bench: Bench, circuit: Circuit) -> Iterator[Record]:
    """Each set of the paper, with as large random sets."""
    lab, task, sets = bench.lab, bench.task, bench.settings.sets
    model = bench.models.model(bench.models.last("grpo"))
    score = task.says_this(model)
    plain = score([])
    yield lab.row("said_this", float(plain.mean()), "nothing", n=len(plain))
    for layer in range(1, model.layers + 1):
        for head in range(model.heads):
            alone = float((plain - score(zeroed_heads([(layer, head)]))).mean())
            yield lab.row("head_flips", alone, GRPO, n=len(plain), layer=layer, head=head)
    heads: dict[str, Heads] = {"three heads": circuit.chosen, "attending heads": circuit.attending}
    units: dict[str, Units] = {
        "valid vectors": circuit.valid_units,
        "invalid vectors": circuit.invalid_units,
        "valid and invalid vectors": list(dict.fromkeys([*circuit.valid_units, *circuit.invalid_units])),
    }
    effects: dict[str, SetEffect] = {}
    edits: dict[str, list[Edit]] = {"nothing": []}
    for name, own in heads.items():
        edits[name] = zeroed_heads(own)
        if 0 < len(own) < model.layers * model.heads:
            effects[name] = ablate_head_set(model, own, score, sets=sets, seed=lab.seed)
            continue
        # Without a head nothing flips; with all of them no other set is as large.
        flipped = float((plain - score(edits[name])).mean())
        yield lab.row("flipped", flipped, name, n=len(plain))
        reason = "all heads attend to the target, so that no other set is as large"
        for metric, control in (("flipped", NULL_HEADS), ("random_flips", None), ("random_flips", NULL_HEADS)):
            yield lab.row(metric, math.nan if own else 0.0, name, n=len(plain), control=control, reason=reason)
    for name, chosen in units.items():
        effects[name] = ablate_unit_set(model, chosen, score, sets=sets, seed=lab.seed)
        edits[name] = zeroed_units(model, chosen)
    for name, effect in effects.items():
        yield from _effect_rows(bench, name, effect)
    for control in (None, NULL_HEADS):
        yield lab.row("flipped", 0.0, "nothing", n=len(plain), control=control)
    yield from _distribution_rows(bench, effects)
    for name, changes in edits.items():
        for kind, share in continuation_kinds(model, task, changes).items():
            yield lab.row("continuation", share, name, n=len(plain), kind=kind)
    yield from _margin_rows(bench, model, circuit)


def _effect_rows(bench: Bench, name: str, effect: SetEffect) -> Iterator[Record]:
    low, high = effect.null_range
    count = len(effect.null)
    yield bench.lab.row("flipped", -effect.effect, name, n=len(effect.change))
    # The null run has the first of the random sets in place of the set.
    yield bench.lab.row("flipped", float(-effect.null[0]), name, n=len(effect.change), control=NULL_HEADS)
    yield bench.lab.row("random_flips", float(-effect.null.mean()), name, n=count, low=-high, high=-low)
    yield bench.lab.row("random_flips", float(-effect.null[1:].mean()), name, n=count - 1, control=NULL_HEADS)
    yield bench.lab.row("p", effect.p, name, n=count)


def _distribution_rows(bench: Bench, effects: dict[str, SetEffect]) -> Iterator[Record]:
    """Quantiles of the random sets, and a level for each set."""
    shown: Sequence[tuple[str, str]] = (
        ("three heads", "random heads"),
        ("valid and invalid vectors", "random neurons"),
    )
    for name, null in shown:
        for percent in _QUANTILES:
            value = float((-effects[name].null).double().quantile(percent / 100))
            yield bench.lab.row("flipped_at", value, null, step=percent, n=len(effects[name].null))
    for name, effect in effects.items():
        for percent in (_QUANTILES[0], _QUANTILES[-1]):
            yield bench.lab.row("flipped_at", -effect.effect, name, step=percent, n=len(effect.change))


def _margin_rows(bench: Bench, model: Model, circuit: Circuit) -> Iterator[Record]:
    """Logit margin of `this` over `not` of value vectors near the last probe, and near a random direction."""
    random = random_directions(model.d, count=1, seed=bench.lab.seed)[0]
    top = bench.settings.pooled
    for control, direction in ((None, circuit.directions[-1]), ("random_direction", random)):
        for antipodes, margin in vector_margins(model, bench.models.world, direction, top).items():
            name = "nearest to invalid" if antipodes else "nearest to valid"
            yield bench.lab.row("verdict_margin", margin, name, n=top, control=control)
    for antipodes, tokens in vector_tokens(model, circuit.directions[-1]).items():
        for token, change in tokens:
            name = "nearest to invalid" if antipodes else "nearest to valid"
            yield bench.lab.row("promoted", change, name, token=token)
    yield bench.lab.row("chance_cosine", circuit.chance, "nearest to valid", n=top)
