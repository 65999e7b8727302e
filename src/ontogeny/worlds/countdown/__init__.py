"""CountDown: reach a target with three numbers, in attempts that the text itself judges with `this works` or `not` (arXiv:2504.14379).

A number is one token. Attempts are random, each followed by its verdict; the first that works is the answer. Puzzles of the test split are
in no training text. An exact parser (`parse_expression`) and exact scores of generated texts (`score_texts`) are the oracle.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.errors import BadInput
from ontogeny.worlds._vocabulary import BOS, EOS, TokenIds, build_vocabulary, pack_sentences, word_tokenizer
from ontogeny.worlds.countdown.attempts import Attempts, Ints, Puzzles, all_attempts, solvable_puzzles
from ontogeny.worlds.countdown.expressions import Expression, parse_expression
from ontogeny.worlds.countdown.scoring import CountdownScores, reward_texts, score_texts
from ontogeny.worlds.countdown.texts import (
    ATTEMPT_TOKENS,
    EXPRESSION_TOKENS,
    PROMPT_TOKENS,
    RESULT,
    TARGET,
    TARGET_AGAIN,
    VERDICT,
    WORDS,
    CountdownTexts,
    VerdictPrefixes,
    longest_text,
    write_prompts,
    write_texts,
    write_verdict_prefixes,
)

__all__ = [
    "ATTEMPT_TOKENS",
    "EXPRESSION_TOKENS",
    "PROMPT_TOKENS",
    "RESULT",
    "TARGET",
    "TARGET_AGAIN",
    "VERDICT",
    "Config",
    "CountdownScores",
    "CountdownTexts",
    "Expression",
    "Verdict",
    "VerdictPrefixes",
    "World",
    "check_answer",
    "concepts",
    "draw_puzzles",
    "facts",
    "judge",
    "longest_text",
    "make",
    "parse_expression",
    "prompts",
    "reward",
    "sample",
    "score",
    "texts",
    "tokenizer",
    "verdict_prefixes",
]

Verdict = Literal["right", "wrong value", "other numbers", "no expression", "no answer"]
Split = Literal["train", "test"]


@dataclass(frozen=True)
class Config:
    largest: int = 9
    """Numbers of a puzzle are 1 to this."""
    targets: int = 30
    """Targets are 1 to this."""
    most: int = 60
    """Largest value in an attempt."""
    attempts: int = 4
    """Most attempts of a text."""
    hit: float = 0.3
    """Probability that an attempt works."""
    test: float = 0.2
    """Share of puzzles in no training text."""
    context: int = 80
    seed: int = 0


@dataclass(frozen=True, eq=False)
class World:
    config: Config
    vocabulary: dict[str, int]
    table: Attempts
    train: Puzzles
    test: Puzzles


def make(config: Config | None = None) -> World:
    """Build the world of a seed, which decides the split of the puzzles.

    Raises:
        BadInput: settings outside their range, a context shorter than a text, or too few puzzles.
    """
    config = config or Config()
    if not (
        1 <= config.largest <= 100 and 1 <= config.targets <= config.most <= 10_000 and config.largest <= config.most
    ):
        raise BadInput(
            "`largest` must lie between 1 and 100 and `most` be at least `targets` and `largest`, got "
            f"{config.largest}, {config.most}, {config.targets}."
        )
    if not (config.attempts >= 1 and 0 < config.hit < 1 and 0 < config.test < 1):
        raise BadInput(
            f"`attempts` must be at least 1, `hit` and `test` lie between 0 and 1, got {config.attempts}, {config.hit} and {config.test}."
        )
    if config.context < (needed := longest_text(config.attempts)):
        raise BadInput(
            f"`context` must hold a text of {needed} tokens, got {config.context}: raise it, or try less often."
        )
    table = all_attempts(config.largest, config.most)
    puzzles = solvable_puzzles(table, config.targets, 2 * config.attempts)
    held_out = np.random.default_rng([config.seed, 31]).random(len(puzzles)) < config.test
    if not 0 < held_out.sum() < len(puzzles):
        raise BadInput(f"both splits must have puzzles, got `test` {config.test} of {len(puzzles)} puzzles.")
    vocabulary = build_vocabulary([*WORDS, *map(str, range(config.most + 1))])
    return World(config, vocabulary, table, _select(puzzles, ~held_out), _select(puzzles, held_out))


def tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Words and numbers as tokens."""
    return word_tokenizer(world.vocabulary, longest=world.config.context)


def draw_puzzles(world: World, rng: np.random.Generator, count: int, split: Split = "train") -> Ints:
    """Indices of random puzzles of a split."""
    return rng.integers(0, len(_puzzles(world, split)), count)


def texts(world: World, rng: np.random.Generator, count: int, split: Split = "train") -> CountdownTexts:
    """Texts of random puzzles, for supervised fine-tuning."""
    chosen = draw_puzzles(world, rng, count, split)
    settings = world.config
    return write_texts(
        world.vocabulary, world.table, _puzzles(world, split), chosen, rng, attempts=settings.attempts, hit=settings.hit
    )


def prompts(world: World, rng: np.random.Generator, count: int, split: Split = "train") -> TokenIds:
    """Prompts of random puzzles, `[puzzle, 8]`."""
    puzzles, chosen = _puzzles(world, split), draw_puzzles(world, rng, count, split)
    return write_prompts(world.vocabulary, puzzles.numbers[chosen], puzzles.target[chosen], rng)


def verdict_prefixes(
    world: World, rng: np.random.Generator, groups: int, place: int, split: Split = "test"
) -> VerdictPrefixes:
    """Groups of four prefixes that end before a verdict, after `place` other attempts.

    Raises:
        BadInput: a place that texts do not have.
    """
    if not 0 <= place < world.config.attempts or groups < 1:
        raise BadInput(
            f"`place` must lie between 0 and {world.config.attempts - 1} and `groups` be at least 1, got {place} and {groups}."
        )
    return write_verdict_prefixes(
        world.vocabulary, world.table, _puzzles(world, split), rng, groups=groups, place=place
    )


def score(world: World, ids: Ints) -> CountdownScores:
    """Scores of texts that begin with a prompt, `[text, token]`."""
    return score_texts(world.vocabulary, ids, end=world.vocabulary[EOS])


def reward(world: World, ids: Ints, *, answered: float = 0.1, near: float = 0.1) -> NDArray[np.float64]:
    """Reward of each text that begins with a prompt, by `reward_texts`; 1 for a right answer.

    Args:
        ids: [text, token].
        answered: For a wrong answer.
        near: At most, beyond it, for a value close to the target.
    """
    scores = score(world, ids)
    return reward_texts(scores, ids[:, TARGET] - world.vocabulary["0"], answered=answered, near=near)


def sample(world: World, rng: np.random.Generator, rows: int) -> TokenIds:
    """Rows of texts, one after the other; the last one of a row is cut."""
    context = world.config.context
    shortest = PROMPT_TOKENS + ATTEMPT_TOKENS
    drawn = texts(world, rng, rows * -(-context // shortest))
    blocks = [drawn.ids[drawn.lengths == length][:, 1:length] for length in np.unique(drawn.lengths)]
    return pack_sentences(
        blocks, rng.permutation(len(drawn.ids)), rows=rows, context=context, first=world.vocabulary[BOS]
    )


def facts(world: World) -> list[Answer]:
    """Verdicts on attempts: `this` or `not`."""
    return [
        Answer(example.text, *((" this", " not") if example.target else (" not", " this")), group=example.group)
        for example in concepts(world)[0].examples[:80]
    ]


def concepts(world: World) -> list[Concept]:
    """Whether an attempt reaches the target, for texts that end before the verdict; a group is a set of numbers."""
    rng = np.random.default_rng([world.config.seed, 37])
    words, examples = {number: word for word, number in world.vocabulary.items()}, []
    seen: set[str] = set()
    for place in range(world.config.attempts):
        drawn = verdict_prefixes(world, rng, 40, place)
        for ids, valid, group in zip(drawn.ids, drawn.valid, drawn.group, strict=True):
            text = " ".join(words[i] for i in ids[1:].tolist())
            if text not in seen:
                seen.add(text)
                numbers = " ".join(map(str, sorted(ids[2:5] - world.vocabulary["0"])))
                examples.append(Example(text, bool(valid), group=numbers, type=f"{place} {group}"))
    return [
        Concept(
            "attempt_works",
            tuple(examples),
            kind="binary",
            question="Does the attempt reach the target?",
            licence="generated",
            source="the world countdown",
        )
    ]


def judge(world: World, text: str) -> Verdict:
    """The oracle: the verdict on the answer of a text, such as `numbers 7 6 5 target 37 : … answer 7 + 6 * 5`.

    Raises:
        BadInput: the text has no numbers or no target.
    """
    words = text.removeprefix(f"{BOS} ").split(f" {EOS}")[0].split()
    try:
        split = words.index("target")
        numbers, target = [int(word) for word in words[1:split]], int(words[split + 1])
    except (ValueError, IndexError):
        raise BadInput(f"a text must begin with `numbers … target …`, got {text[:40]!r}: add the prompt.") from None
    if "answer" not in words:
        return "no answer"
    return check_answer(numbers, target, " ".join(words[len(words) - words[::-1].index("answer") :]))


def check_answer(numbers: list[int], target: int, answer: str) -> Verdict:
    """The verdict on an answer: an expression must use each number once and reach the target.

    Raises:
        BadInput: no numbers.
    """
    if not numbers:
        raise BadInput("`numbers` must have at least one number, got none.")
    try:
        expression = parse_expression(answer)
    except BadInput:
        return "no expression"
    if sorted(expression.numbers) != sorted(numbers):
        return "other numbers"
    return "right" if expression.value == target else "wrong value"


def _puzzles(world: World, split: Split) -> Puzzles:
    if split not in ("train", "test"):
        raise BadInput(f"`split` must be train or test, got {split!r}.")
    return world.train if split == "train" else world.test


def _select(puzzles: Puzzles, chosen: np.ndarray) -> Puzzles:
    return Puzzles(
        puzzles.numbers[chosen],
        puzzles.target[chosen],
        puzzles.set[chosen],
        puzzles.solutions,
        puzzles.start[chosen],
        puzzles.count[chosen],
    )
