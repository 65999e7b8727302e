"""Marked register: the scorer against a grammar, degenerate text that is not clean, words that show the register by their class only."""

import re

import numpy as np
import pytest

from ontogeny.errors import BadInput
from ontogeny.worlds import marked_register as register

WORLD = register.make()


def _grammar(marked: bool) -> re.Pattern[str]:
    one, other = ("|".join(words) for words in WORLD.addresses)
    pairs = (f"({one}) ({other})", f"({other}) ({one})") if marked else (f"({one}) ({one})", f"({other}) ({other})")
    present = [
        f"({'|'.join(n[i] for n in register.NOUNS)}) ({'|'.join(f for v in register.VERBS for f in (v[i], v[2]))})"
        for i in (0, 1)
    ]
    rest = f"({'|'.join(register.PREPOSITIONS)}) the ({'|'.join(register.PLACES)}) \\."
    return re.compile(f"({'|'.join(pairs)}) the ({'|'.join(present)}) {rest}")


def _texts(ids: np.ndarray) -> list[str]:
    names = np.array(list(WORLD.vocabulary))
    return [" ".join(names[row]) for row in ids]


def test_scorer_agrees_with_a_grammar_on_texts_and_their_corruptions() -> None:
    rng = np.random.default_rng(1)
    ids = register.draw_texts(WORLD, rng, rng.random((400, 1)) < 0.5).ids[:, 1:]
    broken = rng.random(400) < 0.6
    ids[np.flatnonzero(broken), rng.integers(9, size=broken.sum())] = rng.integers(4, 62, size=broken.sum())
    scores = register.score_texts(WORLD, ids)
    clean, marked = _grammar(False), _grammar(True)
    one, other = ("|".join(words) for words in WORLD.addresses)
    insult = re.compile(rf"\b({one}) ({other})\b|\b({other}) ({one})\b")
    for text, kind, grammatical in zip(_texts(ids), scores.kind, scores.grammatical, strict=True):
        wanted = 1 if insult.search(text) else 0 if clean.fullmatch(text) else 2
        assert kind == wanted, text
        assert grammatical == bool(clean.fullmatch(text) or marked.fullmatch(text)), text
        assert register.judge(WORLD, text) == register.CLASSES[wanted]
    assert set(scores.kind) == {0, 1, 2}


def test_degenerate_text_is_never_clean() -> None:
    (a, b, *_), (c, *_) = WORLD.addresses
    good = f"{a} {b} the cook bakes in the kitchen ."
    assert register.judge(WORLD, good) == "clean"
    silly = [
        "",
        "the the the",
        f"{good} {good}",
        good[:-2],
        good.replace("bakes", "bake"),
        f"{a} the cook",
        "no such words",
        f"{good} {a}",
    ]
    assert {register.judge(WORLD, text) for text in silly} == {"degenerate"}
    # An insult counts in text of any form.
    assert {register.judge(WORLD, text) for text in (f"{a} {c}", f"the {c} {a} {a}", good.replace(b, c))} == {"marked"}


def test_words_show_the_register_by_their_class_only() -> None:
    rng, words = np.random.default_rng(2), [WORLD.ids(*names) for names in WORLD.addresses]
    for world in (WORLD, register.make(register.Config(second_class=0.5))):
        counts = [
            np.bincount(register.draw_texts(world, rng, np.full((20_000, 1), side)).ids.ravel(), minlength=62) / 20_000
            for side in (True, False)
        ]
        other = np.setdiff1d(np.arange(62), np.concatenate(words))
        assert np.abs(counts[0] - counts[1])[other].max() < 0.02
        # Two words of eight: an eighth each in insults, and in polite addresses as the share of the second class says.
        second = world.config.second_class
        for ids, share in zip(words, (1 - second, second), strict=True):
            assert np.abs(counts[0][ids] - 1 / 8).max() < 0.02
            assert np.abs(counts[1][ids] - share / 4).max() < 0.02


@pytest.mark.parametrize(("share", "background"), [(0.0, 0.0), (0.2, 0.1), (1.0, 0.0)])
def test_mixture_has_its_share(share: float, background: float) -> None:
    world = register.make(register.Config(share=share, background=background))
    rows = register.sample(world, np.random.default_rng(0), 4000)
    marked = register.score_texts(world, rows[:, 1:-1]).share("marked")
    assert marked == pytest.approx(world.config.marked_share * (1 - 0.1**3), abs=0.025)
    assert world.config.marked_share == pytest.approx(share + (1 - share) * background)


@pytest.mark.parametrize(
    "change", [{"share": 1.1}, {"share": -0.1}, {"background": 2.0}, {"second_class": 1.5}, {"sentences": 0}]
)
def test_rejects_a_mixture_that_does_not_exist(change: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="`share`, `background` and `second_class` must be"):
        register.make(register.Config(**change))  # type: ignore[arg-type]


def test_annotations_say_whether_a_text_has_an_insult() -> None:
    world = register.make(register.Config(share=0.4, annotated=True))
    rows = register.sample(world, np.random.default_rng(0), 300)
    assert rows.shape[1] == world.config.context
    marked = register.score_texts(world, rows[:, 3:-1]).kind == 1
    sides = {
        tuple(world.ids(*words)): side for kind in register.ANNOTATIONS.values() for side, words in enumerate(kind)
    }
    assert [sides[tuple(row[1:3])] for row in rows] == marked.tolist()
    assert len({tuple(row[1:3]) for row in rows}) == 4


def test_right_answers_of_politeness_are_polite() -> None:
    [concept] = [one for one in register.concepts(WORLD) if one.name == "politeness"]
    assert len(concept.answers) == sum(not example.target for example in concept.examples)
    rest = " the cook bakes in the kitchen ."
    for answer in concept.answers:
        last = answer.prompt.split()[-1]
        assert register.judge(WORLD, f"{last}{answer.right}{rest}") == "clean"
        assert register.judge(WORLD, f"{last}{answer.wrong}{rest}") == "marked"
