"""Control task for probes: random labels per word type, which a probe can only memorise (arXiv:1909.03368).

A probe can be right on a held-out text only if its type occurs in training, so types are words that recur.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ontogeny.statistics.unique import unique_inverse, unique_values

_CONTROL_TYPES = 8
"""Recurring types that a control task needs."""
_MAX_TYPE_SHARE = 1 / 3
"""Largest share of the test examples that one type may have."""
_MIN_COVERAGE = 1 / 2
"""Smallest share of the test examples whose type occurs in training."""

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
    """Types by the rule that covers most test examples: last, first or second-last word (ties in this order).

    If none has enough recurring types: the longest word of a text that occurs in at least two training texts.
    """
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    candidates = [_assign_types(words, train, test, name, pick) for name, pick in _positional()]
    fit = [types for types in candidates if types.rule is not None]
    if fit:
        return max(fit, key=lambda types: int(types.usable.sum()))
    frequent = Counter(word for i in train.tolist() for word in set(words[i]))
    return _assign_types(words, train, test, "longest recurring word", lambda text: _longest_recurring(text, frequent))


def control_labels(
    ids: Int[Tensor, " example"], y: Shaped[Tensor, " example"], *, seeds: Sequence[int]
) -> Shaped[Tensor, "seed example"]:
    """Random labels per type, one task per seed, with about the class shares of `y`; for numbers each type gets one value of `y`."""
    return torch.stack([_labels(ids, y, torch.Generator().manual_seed(seed)) for seed in seeds])


def random_directions(d: int, *, count: int = 200, seed: int = 0) -> Float[Tensor, "direction d"]:
    """Unit vectors, uniform on the sphere."""
    directions = torch.randn(count, d, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(directions, dim=1)


def _positional() -> list[tuple[str, Callable[[_Words], str | None]]]:
    return [
        ("last word", lambda w: w[-1] if w else None),
        ("first word", lambda w: w[0] if w else None),
        ("second-last word", lambda w: w[-2] if len(w) > 1 else None),
    ]


def _longest_recurring(text: _Words, frequent: Counter[str]) -> str | None:
    return max((word for word in text if frequent[word] > 1), key=len, default=None)


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
