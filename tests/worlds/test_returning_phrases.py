"""Returning phrases: a marked word follows what it followed before, no distance is common to all, and fresh rows have none."""

from dataclasses import replace

import numpy as np
import pytest

from ontogeny.errors import BadInput
from ontogeny.worlds import returning_phrases as phrases

WORLD = phrases.make()


def test_marked_words_can_be_known_from_the_words_before_and_others_cannot() -> None:
    batch = phrases.sample(WORLD, np.random.default_rng(0), 50)
    distances = set()
    for tokens, targets, marks in zip(batch.inputs, batch.targets, batch.coordinates["returned"], strict=True):
        seen: dict[tuple[int, int], int] = {}
        for i, (token, target) in enumerate(zip(tokens.tolist(), targets.astype(int).tolist(), strict=True)):
            if marks[i]:
                distances.add(i - seen[token, target])
            seen[token, target] = i
    assert len(distances) > 5
    assert 0.2 < batch.coordinates["returned"].mean() < 0.8
    fresh = phrases.evaluation(WORLD)["fresh"]
    assert not fresh.coordinates["returned"].any()


def test_names_every_token() -> None:
    names = phrases.named_tokens(WORLD)
    assert names.decode(range(WORLD.vocabulary)) == " ".join(["<s>", *(f"w{i}" for i in range(1, 25))])


@pytest.mark.parametrize("change", [{"shortest": 1}, {"shortest": 7}, {"longest": 9}, {"length": 20}, {"phrases": 0}])
def test_rejects_rows_without_a_returning_phrase(change: dict[str, int]) -> None:
    with pytest.raises(BadInput, match="must"):
        phrases.make(replace(phrases.Config(), **change))
