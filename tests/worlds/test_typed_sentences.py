"""Typed sentences: the recogniser against a regular expression, minimal pairs that break one rule, tasks, and structures for null runs."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.errors import BadInput
from ontogeny.statistics.percolation import connected_share
from ontogeny.worlds import typed_sentences as typed

WORLD = typed.make()
LETTERS = "ECRPVJx"
_CLAUSE, _RELATION = "(CV|RPE(JE)*)", "RPE(JE)*"
GRAMMAR = re.compile(f"(E{_CLAUSE}(J{_CLAUSE})*|E(JE)+{_RELATION}(J{_RELATION})*)")


def tokens(letters: str) -> np.ndarray:
    """A word of each category."""
    own = [
        WORLD.entities[0],
        *WORLD.ids("is"),
        WORLD.relations[0, 0],
        *WORLD.ids("on"),
        WORLD.values[0],
        *WORLD.ids("and", ":"),
    ]
    return np.array([own[LETTERS.index(letter)] for letter in letters], dtype=np.int64)[None]


@given(
    st.one_of(
        st.text(LETTERS, max_size=9),
        st.from_regex(GRAMMAR, fullmatch=True, alphabet=LETTERS).filter(lambda s: len(s) < 20),
    )
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_recogniser_equals_the_regular_expression(letters: str) -> None:
    check = typed.check_sentences(WORLD, tokens(letters), np.array([len(letters)]))
    assert check.grammatical[0] == (GRAMMAR.fullmatch(letters) is not None)


def test_drawn_sentences_are_right_and_of_every_form() -> None:
    drawn = typed.draw_sentences(WORLD, np.random.default_rng(0), 2000)
    check = typed.check_sentences(WORLD, drawn.words, drawn.lengths)
    assert (check.verdicts == typed.VERDICTS.index("seen")).all()
    assert drawn.lengths.min() == 3
    assert drawn.lengths.max() == WORLD.config.longest
    assert 0.3 < check.has_value.mean() < 0.7
    assert (check.has_value & check.has_relation).any()
    first = np.isin(drawn.words[:, 1], WORLD.ids("and", "or"))
    assert 0.1 < first.mean() < 0.25


@pytest.mark.parametrize("kind", typed.PAIR_KINDS)
def test_minimal_pairs_break_one_rule(kind: str) -> None:
    pairs = typed.draw_minimal_pairs(WORLD, np.random.default_rng(1), 50, kind)
    right, wrong = (typed.check_sentences(WORLD, s.words, s.lengths) for s in (pairs.right, pairs.wrong))
    assert len(pairs.right) == 50
    assert right.values_typed.all()
    assert right.relations_typed.all()
    changed = (pairs.right.words != pairs.wrong.words).sum(1)
    if kind == "order":
        assert not wrong.grammatical.any()
        assert (np.sort(pairs.right.words) == np.sort(pairs.wrong.words)).all()
    else:
        assert wrong.grammatical.all()
        assert (changed == 1).all()
        assert not (wrong.relations_typed & wrong.values_typed).any()
        assert (wrong.values_typed if kind == "relation" else wrong.relations_typed).all()
    if kind == "value":
        assert not right.seen.any()


def test_prompts_give_the_words_of_their_sentences() -> None:
    for task in (1, 2):
        prompts = typed.draw_prompts(WORLD, np.random.default_rng(2), 200, task)
        ids, lengths = typed.whole_sequences(WORLD, prompts)
        for row, length, before, words in zip(ids, lengths, prompts.lengths, prompts.answers.words, strict=True):
            given_words, sentence = row[3 : before - 1], row[before : length - 1]
            assert (sentence == words[words > 0]).all()
            assert row[length - 1] == WORLD.vocabulary["</s>"]
            if task == 1:
                assert sorted(given_words) == sorted(sentence)
            else:
                assert 1 <= len(given_words) == len(set(given_words))
                assert set(given_words) <= set(sentence[sentence >= WORLD.entities[0]])
    order = typed.draw_prompts(WORLD, np.random.default_rng(2), 200, 1)
    assert (order.ids[:, 3:15] != order.answers.words).any(1).mean() > 0.5


def test_structures_of_the_null_runs() -> None:
    shares = {
        s: connected_share(typed.make(replace(WORLD.config, structure=s)).pair_table)
        for s in ("typed", "private", "isolated")
    }
    assert shares == {"typed": 1.0, "private": 0.0, "isolated": 0.0}
    shuffled = typed.make(replace(WORLD.config, structure="shuffled"))
    assert shuffled.seen[~shuffled.valid].mean() == pytest.approx(shuffled.seen.mean(), rel=0.1)
    assert (shuffled.seen.sum(1) == WORLD.seen.sum(1)).all()
    drawn = typed.draw_sentences(shuffled, np.random.default_rng(0), 500)
    assert typed.check_sentences(shuffled, drawn.words, drawn.lengths).grammatical.all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pairs": 0}, "at least 1 pair"),
        ({"values": 1}, "2 values"),
        ({"shown": 1.0}, "`shown` must select some but not all"),
        ({"shown": 0.0}, "`shown` must select some"),
        ({"structure": "type"}, "structure"),
        ({"structure": "private", "properties": 1, "values": 5, "shown": 0.4}, "private values need"),
        ({"shares": (0.5, 0.5, 0.5)}, "sum to 1"),
        ({"shares": (0.5, 0.5)}, "three shares"),
        ({"longest": 3}, "`longest` must be at least 4"),
        ({"context": 20}, "`context` must be at least 29"),
        ({"properties": 20_000}, "at most"),
    ],
)
def test_rejects_settings_without_a_language(change: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        typed.make(replace(WORLD.config, **change))  # type: ignore[arg-type]


def test_judge_and_bad_words() -> None:
    entity, other, value = WORLD.words[WORLD.entities[0]], WORLD.words[WORLD.entities[-1]], int(WORLD.seen[0].argmax())
    word = WORLD.words[WORLD.values[value]]
    assert typed.judge(WORLD, f"write : {entity} is {word}") == "seen"
    assert typed.judge(WORLD, f"{other} is {word}") == "mistyped value"
    assert {typed.judge(WORLD, text) for text in ("", "nonsense", f"{entity} is", f"is {entity}")} == {"ungrammatical"}
    with pytest.raises(BadInput, match="`lengths`"):
        typed.check_sentences(WORLD, tokens("ECV"), np.array([4]))
    with pytest.raises(BadInput, match="kind of minimal pair"):
        typed.draw_minimal_pairs(WORLD, np.random.default_rng(0), 3, "word")
    with pytest.raises(BadInput, match="`task` must be 0 to 2"):
        typed.draw_prompts(WORLD, np.random.default_rng(0), 3, 3)
