"""CountDown: the parser agrees with Python's grammar in exact arithmetic, texts are right, and generated texts are scored exactly."""

import ast
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.errors import BadInput
from ontogeny.worlds import countdown

WORLD = countdown.make()
WORDS = {number: word for word, number in WORLD.vocabulary.items()}


def text(ids: np.ndarray) -> str:
    return " ".join(WORDS[i] for i in ids.tolist() if i)


def reference(source: str) -> Fraction | None:
    """The value by Python's own grammar, in fractions; None where it is no expression of ours or divides by zero."""

    def value(node: ast.AST) -> Fraction:
        match node:
            case ast.Expression():
                return value(node.body)
            case ast.Constant() if type(node.value) is int:
                return Fraction(node.value)
            case ast.UnaryOp(op=ast.USub()):
                return -value(node.operand)
            case ast.BinOp(op=ast.Add()):
                return value(node.left) + value(node.right)
            case ast.BinOp(op=ast.Sub()):
                return value(node.left) - value(node.right)
            case ast.BinOp(op=ast.Mult()):
                return value(node.left) * value(node.right)
            case ast.BinOp(op=ast.Div()):
                return value(node.left) / value(node.right)
        raise SyntaxError("another construct")

    try:
        return value(ast.parse(source.strip(), mode="eval"))
    except (SyntaxError, ZeroDivisionError, ValueError):
        return None


@settings(max_examples=300, deadline=None)
@given(st.one_of(
    st.text("0123456789+-*/() ", max_size=12),
    st.recursive(
        st.integers(0, 99).map(str),
        lambda part: st.one_of(
            st.tuples(part, st.sampled_from("+-*/"), part).map(lambda p: f"{p[0]} {p[1]} {p[2]}"),
            part.map(lambda p: f"({p})"),
            part.map(lambda p: f"-({p})"),
        ),
        max_leaves=8,
    ),
))  # fmt: skip
def test_parser_equals_the_grammar_of_python(source: str) -> None:
    if re.search(r"(?<!\d)0\d", source):  # leading zeros are no numbers in Python
        return
    expected = reference(source)
    if expected is None:
        with pytest.raises(BadInput):
            countdown.parse_expression(source)
    else:
        expression = countdown.parse_expression(source)
        assert expression.value == expected
        assert list(expression.numbers) == [int(number) for number in re.findall(r"\d+", source)]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "must have a number at character 1, got its end"),
        ("7 +", "must have a number at character 4"),
        ("7 6", "must have an operator at character 3, got '6'"),
        ("7 x 6", "got 'x' in '7 x 6'"),
        ("7 × 6", "got '×'"),
        ("7.5 + 1", "got '.'"),
        ("٣ + 1", r"must have a number, \+ - \* / or a parenthesis at character 1"),
        ("2 ** 3", "must have a number at character 4"),
        ("(7 + 6", "must have a closing parenthesis"),
        ("7 + 6)", "must have an operator at character 6"),
        ("2(3)", "must have an operator at character 2"),
        ("6 / (3 - 3)", "must not divide by zero, got '6 / \\(3 - 3\\)' \\(character 3\\)"),
        ("1" * 13, "at most 12 digits"),
        ("(" * 1001, "at most 1000 characters"),
        ("__import__('os')", "got '_'"),
    ],
)
def test_what_is_no_expression_is_named(source: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        countdown.parse_expression(source)


def test_depth_needs_no_recursion() -> None:
    assert countdown.parse_expression("(" * 490 + "7" + ")" * 490).value == 7


def test_texts_agree_with_the_parser_and_the_scores() -> None:
    drawn = countdown.texts(WORLD, np.random.default_rng(1), 200)
    for row in range(200):
        words = text(drawn.ids[row])
        numbers, target = words.split()[2:5], int(words.split()[6])
        tried = re.findall(r"(?<=[:)] )([^=()]+) = ([^=()]+) = (\d+) \( (\w+)", words)
        assert len(tried) == int((drawn.attempts[row] >= 0).sum())
        for expression, reduced, result, verdict in tried:
            parsed = countdown.parse_expression(expression)
            assert parsed.value == countdown.parse_expression(reduced).value == int(result)
            assert sorted(map(str, parsed.numbers)) == sorted(numbers)
            assert (verdict == "this") is (int(result) == target)
        assert countdown.judge(WORLD, words) == ("right" if drawn.solved[row] else "no answer")
    scores = countdown.score(WORLD, drawn.ids)
    assert (scores.right == drawn.solved).all()
    assert scores.in_form.all()
    assert (scores.calculated == 1).all()
    assert scores.works_wrongly.sum() == scores.misses.sum() == 0
    assert (scores.says_works == drawn.solved).all()
    assert 0.2 < (drawn.solved & (drawn.attempts[:, 1] < 0)).mean() < 0.4, "an attempt works with probability .3"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_scores_of_changed_texts_agree_with_the_oracle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = countdown.texts(WORLD, rng, 8).ids
    places = rng.integers(countdown.PROMPT_TOKENS, ids.shape[1], (8, 3))
    ids[np.arange(8)[:, None], places] = rng.integers(3, len(WORDS), (8, 3))
    scores = countdown.score(WORLD, ids)
    for row in range(8):
        words = [WORDS[i] for i in ids[row].tolist()]
        ended = words.index("</s>") if "</s>" in words else len(words)
        verdict = countdown.judge(WORLD, " ".join(words[1:ended]))
        # An answer that the text does not end is not right.
        if len(words) > ended:
            assert bool(scores.right[row]) is (
                verdict == "right" and len(words[:ended]) - words[:ended][::-1].index("answer") + 5 == ended
            )
        assert bool(scores.answered[row]) is (verdict != "no answer")
    rewards = countdown.reward(WORLD, ids)
    assert ((rewards == 1) == scores.right).all()
    assert (rewards[~scores.answered] == 0).all()
    assert ((rewards >= 0) & (rewards <= 1)).all()
    wrong = scores.answered & ~scores.right
    assert ((rewards[wrong] >= 0.1) & (rewards[wrong] <= 0.2)).all()


def test_only_result_and_target_together_predict_a_verdict() -> None:
    for place in range(4):
        drawn = countdown.verdict_prefixes(WORLD, np.random.default_rng(place), 30, place)
        assert drawn.ids.shape == (120, 8 + 15 * place + 12)
        result, target = drawn.ids[:, -2], drawn.ids[:, countdown.TARGET]
        assert ((result == target) == drawn.valid).all()
        for column in drawn.ids.T:
            for token in np.unique(column):
                assert drawn.valid[column == token].mean() == 0.5, "no token alone predicts it"
        assert all(drawn.valid[drawn.group == group].sum() == 2 for group in range(30))


def test_splits_share_no_puzzle() -> None:
    train, test = (
        {(*map(int, numbers), int(target)) for numbers, target in zip(own.numbers, own.target, strict=True)}
        for own in (WORLD.train, WORLD.test)
    )
    assert not train & test
    assert 0.1 < len(test) / len(train | test) < 0.3


def test_wrong_worlds_and_answers_are_refused() -> None:
    for options, words in (
        ({"largest": 0}, "`largest` must lie between 1 and 100"),
        ({"targets": 90}, "`most` be at least `targets`"),
        ({"attempts": 0}, "`attempts` must be at least 1"),
        ({"hit": 1.0}, "`hit` and `test` lie between 0 and 1"),
        ({"context": 20}, "must hold a text of 75 tokens"),
        ({"largest": 1, "targets": 2, "most": 3}, "must have at least 10 puzzles with a solution"),
        ({"test": 1e-9}, "both splits must have puzzles"),
    ):
        with pytest.raises(BadInput, match=words):
            countdown.make(countdown.Config(**options))
    rng = np.random.default_rng(0)
    with pytest.raises(BadInput, match="`place` must lie between 0 and 3"):
        countdown.verdict_prefixes(WORLD, rng, 4, 4)
    with pytest.raises(BadInput, match="`split` must be train or test"):
        countdown.texts(WORLD, rng, 2, "dev")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="keep the prompts"):
        countdown.score(WORLD, np.zeros((2, 20), dtype=np.int64))
    with pytest.raises(BadInput, match="must be at least 0 and below 1 together"):
        countdown.reward(WORLD, countdown.texts(WORLD, rng, 2).ids, near=0.9)
    with pytest.raises(BadInput, match="must begin with `numbers"):
        countdown.judge(WORLD, "answer 7")
    with pytest.raises(BadInput, match="at least one number"):
        countdown.check_answer([], 3, "3")
    assert countdown.check_answer([7, 6, 5], 37, "7 + 6 * 5") == "right"
    assert countdown.check_answer([7, 6, 5], 37, "6 * 5 + 8") == "other numbers"
    assert countdown.check_answer([7, 6, 5], 38, "7 + 6 * 5") == "wrong value"
    assert countdown.check_answer([7, 6, 5], 38, "7 / (5 - 5)") == "no expression"
