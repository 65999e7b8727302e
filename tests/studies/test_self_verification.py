"""Self-verification: kinds of continuations, matched nulls, and shares of generated texts."""

import math

import numpy as np
import pytest
import torch

from ontogeny.studies.self_verification._measures import behaviour_shares, continuation_kind, shuffled_verdicts
from ontogeny.worlds import countdown

WORLD = countdown.make()


def ids(text: str) -> list[int]:
    return [WORLD.vocabulary[word] for word in text.split()]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("this works ) answer 7 + 6", "fail"),
        ("this works ) </s> not", "fail"),
        ("not 12 ) 7 + 6 *", "success"),
        ("not 12 ) </s> this works", "success"),
        ("not 12 ) this works ) answer", "mix"),
        ("not 12 ) answer 7 + 6", "mix"),
        ("this 12 ) 7", "unknown"),
        ("12 ) 7 + 6", "unknown"),
        ("not : numbers 3", "unknown"),
    ],
)
def test_continuations_have_the_kinds_of_the_paper(text: str, kind: str) -> None:
    assert continuation_kind(WORLD, ids(text)) == kind


def test_shuffled_verdicts_stay_matched() -> None:
    groups = torch.arange(50).repeat_interleave(4)
    valid = torch.tensor([True, False, False, True]).repeat(50)
    shuffled = shuffled_verdicts(valid, groups, 0)
    assert (shuffled.unflatten(0, (-1, 4)).sum(1) == 2).all()
    assert 0.3 < (shuffled == valid).float().mean() < 0.7


def test_shares_of_texts_without_attempts_are_not_numbers() -> None:
    drawn = countdown.texts(WORLD, np.random.default_rng(0), 40)
    whole = behaviour_shares(countdown.score(WORLD, drawn.ids))
    assert whole == {
        "solved": drawn.solved.mean(),
        "in form": 1.0,
        "calculations right": 1.0,
        "verdicts right": 1.0,
        "“this works” right": 1.0,
    }
    bare = behaviour_shares(countdown.score(WORLD, drawn.ids[:, : countdown.PROMPT_TOKENS]))
    assert (bare["solved"], bare["in form"]) == (0, 0)
    assert all(math.isnan(bare[name]) for name in ("calculations right", "verdicts right", "“this works” right"))
