"""Returning phrases: a marked word follows what it followed before, no distance is common to all, and fresh rows have none."""

from dataclasses import replace

import numpy as np
import pytest

from ontogeny.errors import BadInput
from ontogeny.worlds import returning_phrases as phrases

WORLD = phrases.make()


def test_known_words_of_phrases_follow_what_they_followed_before() -> None:
    batch = phrases.evaluation(WORLD)["returning"]
    distances = set()
    for tokens, targets, marks in zip(batch.inputs, batch.targets.astype(int), batch.coordinates["known"], strict=True):
        seen: dict[int, tuple[int, int]] = {}
        for i, (token, target) in enumerate(zip(tokens.tolist(), targets.tolist(), strict=True)):
            if marks[i]:
                assert seen[token][0] == target  # what followed it the last time
                distances.add(i - seen[token][1])
            seen[token] = target, i
    assert len(distances) > 10
    assert 0.2 < batch.coordinates["known"].mean() < 0.8
    assert not phrases.evaluation(WORLD)["fresh"].coordinates["known"].any()


def test_known_words_of_a_ruled_row_are_given_by_the_word_before_the_last_one() -> None:
    rule: dict[int, int] = {}
    for number in range(2):  # one rule for all rows of a world
        batch = phrases.sample(phrases.make(replace(WORLD.config, ruled=1.0)), np.random.default_rng(number), 80)
        for tokens, targets, marks in zip(
            batch.inputs, batch.targets.astype(int), batch.coordinates["known"], strict=True
        ):
            for i in np.flatnonzero(marks):
                assert rule.setdefault(int(tokens[i - 1]), int(targets[i])) == targets[i]
    assert len(rule) == len(set(rule.values())) == WORLD.config.words


def test_names_every_token() -> None:
    names = phrases.named_tokens(WORLD)
    assert names.decode(range(WORLD.vocabulary)) == " ".join(["<s>", *(f"w{i}" for i in range(1, 25))])


@pytest.mark.parametrize(
    "change", [{"shortest": 1}, {"shortest": 7}, {"longest": 9}, {"length": 20}, {"phrases": 0}, {"ruled": 1.5}]
)
def test_rejects_rows_without_a_returning_phrase(change: dict[str, int]) -> None:
    with pytest.raises(BadInput, match="must"):
        phrases.make(replace(phrases.Config(), **change))
