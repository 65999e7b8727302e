"""Control task for probes: random labels per word type, which a probe can only memorise (arXiv:1909.03368).

A probe can be right on a held-out text only if its type occurs in training, so types are words that recur. The control says something
about a concept only if its types predict the label: a probe that memorises types gains nothing where they do not.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Num, Shaped
from torch import Tensor

from ontogeny.statistics.bootstrap import Interval, mean_samples, percentile_interval
from ontogeny.statistics.unique import unique_inverse, unique_values

_CONTROL_TYPES = 8
"""Recurring types that a control task needs."""
_MAX_TYPE_SHARE = 1 / 3
"""Largest share of the test examples that one type may have."""
_MIN_COVERAGE = 1 / 2
"""Smallest share of the test examples whose type occurs in training."""

_LABEL_MARGIN = 2.0
"""Standard errors, over types, by which types must beat the commonest class to count as predicting the label."""

_Words = list[str]


@dataclass(frozen=True, eq=False)
class ControlTypes:
    """The type of each example; `rule` is None, with a reason, if too few types recur."""

    ids: Int[Tensor, " example"]
    usable: Bool[Tensor, " test"]
    """Test examples whose type occurs in training, in the order of the test indices; the control task is scored on these."""
    rule: str | None
    reason: str = ""


def control_types(texts: Sequence[str], train: Int[Tensor, " train"], test: Int[Tensor, " test"]) -> ControlTypes:
    """Types by the first of these families that has enough recurring ones; in a family the rule that covers most test examples.

    The last, first or second-last word; the last or first two words, or the first and the last; the longest, or the rarest, word that
    occurs in at least two training texts; that pair of words.
    """
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    frequent = Counter(word for i in train.tolist() for word in set(words[i]))
    families = [_single_words(), _word_pairs(), *([rule] for rule in _recurring_words(frequent))]
    reasons = []
    for family in families:
        candidates = [_assign_types(words, train, test, name, pick) for name, pick in family]
        if fit := [types for types in candidates if types.rule is not None]:
            return max(fit, key=lambda types: int(types.usable.sum()))
        reasons += candidates
    return max(reasons, key=lambda types: (len(unique_values(types.ids[test][types.usable])), int(types.usable.sum())))


@dataclass(frozen=True)
class TypeBaseline:
    """How well the types alone tell the label."""

    accuracy: float
    """Of the commonest training label of a type, on the usable test examples; ties count by their share. NaN without types."""
    predicts: bool
    """Whether that is more than the commonest class of these examples has, beyond chance."""


def type_baseline(
    types: ControlTypes, y: Shaped[Tensor, " example"], train: Int[Tensor, " train"], test: Int[Tensor, " test"]
) -> TypeBaseline:
    """The label by type alone: without this, a control task says nothing about the concept."""
    if types.rule is None or y.is_floating_point() or not types.usable.any():
        return TypeBaseline(math.nan, False)
    y, ids, train, test, usable = (part.cpu() for part in (y, types.ids, train, test, types.usable))
    classes, label = unique_inverse(y)
    kinds, member = unique_inverse(ids)
    table = torch.zeros(kinds, classes, dtype=torch.float64)
    table.index_put_((member[train], label[train]), torch.tensor(1.0, dtype=torch.float64), accumulate=True)
    best = table == table.amax(1, keepdim=True)
    held_out = test[usable]
    right = (best.double() / best.sum(1, keepdim=True))[member[held_out], label[held_out]]
    commonest = float(torch.bincount(label[held_out]).max()) / len(held_out)
    # Examples of one type are right or wrong together: the error is that over types.
    count = len(unique_values(member[held_out]))
    error = math.sqrt(commonest * (1 - commonest) / count)
    accuracy = float(right.mean())
    return TypeBaseline(accuracy, accuracy > commonest + _LABEL_MARGIN * error)


def selectivity(
    right: Float[Tensor, "site usable"],
    control_right: Float[Tensor, "task site usable"],
    weights: Num[Tensor, "sample usable"],
    *,
    groups: int,
) -> tuple[Float[Tensor, " site"], Interval]:
    """Accuracy minus the control task's, on the same examples, with a paired 95 % interval over resamples of the groups.

    Args:
        right: 1 where the probe is right, on the test examples whose type occurs in training.
        control_right: Likewise for each control task.
        weights: Resamples of the groups at these examples.
    """
    gain = right.double() - control_right.double().mean(0)
    drawn = weights.sum(1) > 0
    if not drawn.all():  # a copy of a large table only where one is needed
        weights = weights[drawn]
    return gain.mean(1), percentile_interval(gain.mean(1), mean_samples(gain, weights), groups=groups)


def control_labels(
    ids: Int[Tensor, " example"], y: Shaped[Tensor, " example"], *, seeds: Sequence[int]
) -> Shaped[Tensor, "seed example"]:
    """Random labels per type, one task per seed, with about the class shares of `y`; for numbers each type gets one value of `y`."""
    return torch.stack([_labels(ids, y, torch.Generator().manual_seed(seed)) for seed in seeds])


def random_directions(d: int, *, count: int = 200, seed: int = 0) -> Float[Tensor, "direction d"]:
    """Unit vectors, uniform on the sphere."""
    directions = torch.randn(count, d, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(directions, dim=1)


_Rule = tuple[str, Callable[[_Words], str | None]]


def _single_words() -> list[_Rule]:
    return [
        ("last word", lambda w: w[-1] if w else None),
        ("first word", lambda w: w[0] if w else None),
        ("second-last word", lambda w: w[-2] if len(w) > 1 else None),
    ]


def _word_pairs() -> list[_Rule]:
    return [
        ("last two words", lambda w: " ".join(w[-2:]) if len(w) > 1 else None),
        ("first two words", lambda w: " ".join(w[:2]) if len(w) > 1 else None),
        ("first and last word", lambda w: f"{w[0]} {w[-1]}" if len(w) > 1 else None),
    ]


def _recurring_words(frequent: Counter[str]) -> list[_Rule]:
    def longest(text: _Words) -> str | None:
        return max((word for word in text if frequent[word] > 1), key=len, default=None)

    def rarest(text: _Words) -> str | None:
        return min((word for word in text if frequent[word] > 1), key=lambda word: (frequent[word], word), default=None)

    def both(text: _Words) -> str | None:
        return None if longest(text) is None else f"{longest(text)} {rarest(text)}"

    return [
        ("longest recurring word", longest),
        ("rarest recurring word", rarest),
        ("longest and rarest recurring word", both),
    ]


def _assign_types(
    words: Sequence[_Words],
    train: Int[Tensor, " train"],
    test: Int[Tensor, " test"],
    name: str,
    pick: Callable[[_Words], str | None],
) -> ControlTypes:
    """Types by one rule. An example without such a word is its own type."""
    picked = [pick(text) for text in words]
    keys = [f"word {word}" if word is not None else f"example {i}" for i, word in enumerate(picked)]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    ids = torch.tensor([number[key] for key in keys], dtype=torch.long)
    usable = torch.isin(ids[test], ids[train])
    sizes = Counter(ids[test][usable].tolist())
    covered = int(usable.sum())
    trouble = ""
    if len(sizes) < _CONTROL_TYPES:
        trouble = f"only {len(sizes)} types occur in train and test, {_CONTROL_TYPES} are needed"
    elif covered < _MIN_COVERAGE * len(test):
        trouble = f"only {covered} of {len(test)} test examples have a type that occurs in train"
    elif max(sizes.values()) > _MAX_TYPE_SHARE * covered:
        trouble = f"one type holds {max(sizes.values())} of {covered} test examples"
    if trouble:
        return ControlTypes(ids, usable, None, f"no control task: by {name}, {trouble}")
    return ControlTypes(ids, usable, name)


def _labels(
    ids: Int[Tensor, " example"], y: Shaped[Tensor, " example"], generator: torch.Generator
) -> Shaped[Tensor, " example"]:
    types, member = unique_inverse(ids)
    sizes = torch.bincount(member)
    if y.is_floating_point():
        return y[torch.randint(len(y), (types,), generator=generator)][member]
    values = unique_values(y)
    room = torch.stack([(y == value).sum() for value in values]).double()
    noise = torch.rand(types, generator=generator)
    label = torch.zeros(types, dtype=torch.long)
    # Large types first, each class drawn in proportion to its remaining room, so that small types balance the classes.
    for kind in (sizes.double() + noise).argsort(descending=True).tolist():
        chosen = torch.multinomial(room.clamp(min=1e-9), 1, generator=generator)[0]
        label[kind] = chosen
        room[chosen] -= sizes[kind]
    return values[label][member]
