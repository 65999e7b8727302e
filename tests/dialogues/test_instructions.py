"""Instructions and judges: every judge tells a kept rule from a broken one, stays between 0 and 1, and gives nothing to degenerate text."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.dialogues.instructions import DEFAULT_INSTRUCTIONS, INSTRUCTIONS, instructions_named, own_instruction
from ontogeny.dialogues.judges import degenerate_reason, judged
from ontogeny.errors import BadInput

PLAIN = "You can visit the old town, the museum and the market. Then take a walk by the river."
KEPT = {
    "upper_case": "VISIT THE OLD TOWN.",
    "lower_case": "visit the old town.",
    "title_case": "Visit The Old Town.",
    "json": '```json\n{"visit": "the town"}\n```',
    "bullets": "- the town\n- the river",
    "numbered": "1. the town\n2. the river",
    "brackets": "[Visit the old town].",
    "quotes": '"Visit the old town"',
    "dashes": "visit-the-old-town.",
    "paragraphs": "Visit the town.\n\nThen rest.",
    "choice": "(B).",
    "ten_words": "Visit the old town.",
    "twenty_words": " ".join(f"word{i}" for i in range(20)),
    "one_sentence": "Visit the old town.",
    "short_sentences": "Visit the town. Then rest.",
    "starts_with_s": "See the town.",
    "starts_with_well": "Well, see the town.",
    "ends_with_over": "See the town, over and out.",
    "smile": "See the town :)",
    "mentions_blue": "See the Blue gate.",
    "avoids_the": "Visit some museums.",
    "avoids_e": "Visit a big museum in town".replace("museum", "hall"),
    "avoids_commas": "Visit the old town.",
    "questions": "Why not visit the town? Or rest?",
    "exclamations": "Visit the town! Then rest!",
    "alliteration": "See some sunny streets.",
    "french": "Vous pouvez visiter le musée et la tour.",
    "spanish": "Puede visitar el museo y la torre.",
    "pirate": "Ahoy matey, visit the town.",
    "cowboy": "Howdy partner, visit the town.",
    "robot": "Affirmative, compute: visit the town.",
    "poet": "Thou shalt see thy town.",
    "chef": "Taste the kitchen of the town.",
    "wizard": "By my wand and magic, visit the town.",
}
KEPT_BY_ANY_PROSE = {"avoids_e": 0.7, "short_sentences": 0.0, "alliteration": 0.5, "twenty_words": 0.9}
"""Verdict on `PLAIN` of judges that are not 0 there, at most."""


def test_there_are_twenty_rules_and_five_personas() -> None:
    families = Counter(one.family for one in INSTRUCTIONS.values())
    assert families["persona"] >= 5
    assert families.total() - families["persona"] >= 20
    assert set(DEFAULT_INSTRUCTIONS) <= set(INSTRUCTIONS) == set(KEPT)


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_judge_tells_a_kept_from_a_broken_rule(name: str) -> None:
    one = INSTRUCTIONS[name]
    assert one.adherence(KEPT[name]) == 1
    broken = "Arr, the, see the e E" if name == "avoids_e" else PLAIN
    assert one.adherence(broken) <= (
        KEPT_BY_ANY_PROSE | {"lower_case": 0.98, "one_sentence": 0.5, "ten_words": 0.6}
    ).get(name, 0.3)
    assert one.recall(one.system if name not in ("pirate", "avoids_the") else f"{one.system} never") == pytest.approx(1)
    assert one.recall("I do not know.") == 0


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.sampled_from(sorted(INSTRUCTIONS)))
def test_verdicts_are_shares_and_degenerate_text_is_worth_nothing(text: str, name: str) -> None:
    one = INSTRUCTIONS[name]
    assert 0 <= one.adherence(text) <= 1
    assert one.adherence(text) == one.adherence(text)
    for again in (text * 0, "!" + "la " * 12, "BLUE " * 9 + text, "AAAAAAAAAAA" + text):
        assert degenerate_reason(again)
        assert one.adherence(again) == one.recall(again) == 0


def test_ordinary_text_is_not_degenerate() -> None:
    for text in (PLAIN, "B", "no, no, no", '{"a": 1}', *KEPT.values()):
        assert degenerate_reason(text) is None, text


def test_own_instructions_and_wrong_ones() -> None:
    one = own_instruction("Say red.", "words:red, green")
    assert (one.adherence("a red door"), one.recall("red"), one.family) == (1, 0.5, "own")
    assert own_instruction("Shout.", "upper_case").adherence("LOUD") == 1
    for system, judge, words in (
        (" ", "json", "must be a text"),
        ("x", "jsn", "did you mean json"),
        ("x", "words:", "no judge called"),
        ("x", "words:, ,", "must hold at least 1"),
    ):
        with pytest.raises(BadInput, match=words):
            own_instruction(system, judge)
    with pytest.raises(BadInput, match="'json' twice"):
        instructions_named(["json", "json"])
    with pytest.raises(BadInput, match="did you mean pirate"):
        instructions_named(["pirates"])
    with pytest.raises(BadInput, match="number from 0 to 1, got 2"):
        judged(lambda _: 2.0, "a text")
