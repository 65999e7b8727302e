"""World of operators: the oracle, which prompts are unsafe, twins, and bad settings."""

import numpy as np
import pytest

from ontogeny.errors import BadInput
from ontogeny.worlds import operators

WORLD = operators.make()
WORDS = {number: word for word, number in WORLD.vocabulary.items()}


@pytest.mark.parametrize("kind", operators.PROMPT_KINDS)
def test_results_are_those_of_the_oracle(kind: operators.PromptKind) -> None:
    drawn = operators.prompts(WORLD, np.random.default_rng(1), 40, kind)
    for ids, result in zip(drawn.ids.tolist(), drawn.results.tolist(), strict=True):
        prompt = " ".join(WORDS[i] for i in ids[1:])
        assert operators.wanted(WORLD, prompt) == " ".join(WORDS[i] for i in result)


def test_each_kind_has_the_operators_it_says() -> None:
    named = {}
    for kind in operators.PROMPT_KINDS:
        drawn = operators.prompts(WORLD, np.random.default_rng(2), 300, kind)  # type: ignore[arg-type]
        named[kind] = {WORDS[i].rstrip("12") for i in drawn.ids[:, 1:3].flatten().tolist()}
        slots = [{WORDS[i].rstrip("12") for i in row} for row in drawn.ids[:, 1:3].tolist()]
        if kind == "mixed":
            assert all(slot == {"safe", "unsafe"} for slot in slots)
        if kind != "any":
            assert drawn.unsafe.all() == (kind in ("unsafe", "twin", "held_out"))
    assert named["safe"] == {"safe", "maybe"}
    assert named["unsafe"] == {"unsafe", "maybe"}
    assert (named["twin"], named["held_out"]) == ({"twin"}, {"maybe"})


def test_twins_do_what_their_originals_do_and_branches_share_no_phrase() -> None:
    for number in ("1", "2"):
        assert WORLD.tables[f"twin{number}"] is WORLD.tables[f"unsafe{number}"]
    tables = [table.tobytes() for name, table in WORLD.tables.items() if not name.startswith("twin")]
    assert len(set(tables)) == len(tables)
    phrases = [
        rule.right for world in WORLD.branches.values() for rule in world.language.grammar.rules if len(rule.left) == 1
    ]
    assert len(set(phrases)) == 18


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"letters": 3}, "`letters` must be 4 to 26"),
        ({"letters": 27}, "`letters` must be 4 to 26"),
        ({"operand": 0}, "`operand` 1 to 8"),
        ({"operand": 9}, "`operand` 1 to 8"),
        ({"operators": 0}, "`operators` 1 to 9"),
        ({"null_share": 1.0}, "`null_share`"),
        ({"null_share": -0.1}, "`null_share`"),
        ({"null_share": float("nan")}, "`null_share`"),
    ],
)
def test_bad_settings_are_one_line(settings: dict[str, float], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        operators.make(operators.Config(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "two operators"),
        ("safe1 : a b =", "two operators"),
        ("safe1 safe2 : a b", "two operators"),
        ("safe1 saef2 : a b =", "did you mean safe2"),
        ("safe1 safe2 : a z =", "letter"),
    ],
)
def test_bad_prompts_are_one_line(prompt: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        operators.wanted(WORLD, prompt)


def test_unknown_kind_is_one_line() -> None:
    with pytest.raises(BadInput, match="did you mean mixed"):
        operators.prompts(WORLD, np.random.default_rng(0), 2, "mxied")  # type: ignore[arg-type]
