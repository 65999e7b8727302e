"""Null of an edit: random changes of the same weights, of the same rank and norm."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from ontogeny.direction import random_unit_vector
from ontogeny.errors import BadInput, unknown_name
from ontogeny.interventions import RankOne
from ontogeny.steering.steer import Edit

NullKind = Literal["random_rank_one", "random_value"]
NULL_KINDS: tuple[NullKind, ...] = ("random_rank_one", "random_value")
"""A random key and a random value; or the key of the edit with a random value, which acts on the same tokens as the edit."""


def edit_norm(edits: Sequence[Edit]) -> float:
    """Frobenius norm of all changes together, over the matrices that they change."""
    return math.sqrt(sum(_squared_norm(own) for own in _by_site(edits)))


def norm_matched_edits(edits: Sequence[Edit], kind: NullKind = "random_rank_one", *, seed: int = 0) -> list[Edit]:
    """Random rank-one changes in the place of the edit's, with the same Frobenius norm in each matrix.

    Raises:
        BadInput: an edit that does not change a weight, or an unknown kind.
    """
    if kind not in NULL_KINDS:
        raise unknown_name("null of an edit", kind, NULL_KINDS)
    nulls: list[Edit] = []
    for own in _by_site(edits):
        drawn: list[Edit] = []
        for edit in own:
            number = 1000 * seed + len(nulls) + len(drawn)
            what = _rank_one(edit)
            if kind == "random_rank_one":
                drawn.append(replace(edit, what=what.null(number)))
            else:
                value = random_unit_vector(len(what.value), number).to(what.value) * what.value.norm()
                drawn.append(replace(edit, what=RankOne(what.key, value)))
        scale = (_squared_norm(own) / max(_squared_norm(drawn), 1e-300)) ** 0.5
        nulls += [replace(e, what=RankOne(_rank_one(e).key, _rank_one(e).value * scale)) for e in drawn]
    return nulls


def _by_site(edits: Sequence[Edit]) -> list[list[Edit]]:
    return [[edit for edit in edits if edit.site == site] for site in dict.fromkeys(edit.site for edit in edits)]


def _squared_norm(edits: Sequence[Edit]) -> float:
    """Squared Frobenius norm of a sum of rank-one changes."""
    keys = torch.stack([_rank_one(edit).key.double() for edit in edits])
    values = torch.stack([_rank_one(edit).value.double() for edit in edits])
    return float(((keys @ keys.T) * (values @ values.T)).sum())


def _rank_one(edit: Edit) -> RankOne:
    if not isinstance(edit.what, RankOne):
        raise BadInput(f"the null of a knowledge edit needs changes of weights, got {type(edit.what).__name__}.")
    return edit.what
