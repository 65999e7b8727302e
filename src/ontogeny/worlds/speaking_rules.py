"""Speaking rules: short dialogues in which each speaker follows a rule, and only the assistant's is named, in the system prompt.

A rule is a word to mention, to begin with, or to end with. A turn is about the thing that the other speaker has mentioned, so that it needs
the other's words as well as the rule. Asked for its rule, the assistant names it. Dialogues are short (`rounds`), so that longer ones show
how a model keeps to its system prompt beyond those it was trained on (arXiv:2402.10962).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerFast

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.errors import BadInput
from ontogeny.worlds._vocabulary import BOS, EOS, TokenIds, build_vocabulary, lookup_ids, word_tokenizer

THINGS = (
    "tower", "river", "market", "bridge", "garden", "harbour", "mill", "school", "forest", "well-house", "church", "castle",
    "lake", "farm", "inn", "square", "gate", "library", "theatre", "station", "hill", "museum", "palace", "road",
)  # fmt: skip
PLACES = ("near", "behind", "beside", "above", "below", "opposite")
COLOURS = ("red", "blue", "green", "white", "black", "golden")
OPENERS = ("well", "alas", "look", "indeed")
CLOSERS = ("over", "please", "friend", "then")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %} {{ turn['role'] }} : {{ turn['content'] }} {{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %} assistant :{% endif %}"
)
RECALL_QUESTION = "what is your rule ?"
_RECALL_SHARE, _OPENING_SHARE = 0.12, 0.3
_GRAMMAR = (
    "system", "user", "assistant", ":", "mention", "begin", "end", "with", ".", "the", "is", "tell", "me", "of", "what", "your", "rule",
    "?", "my",
)  # fmt: skip


@dataclass(frozen=True)
class SpeakingRule:
    """A rule of one speaker."""

    kind: Literal["mention", "begin", "end"]
    word: str

    @property
    def system(self) -> str:
        """The system prompt."""
        return f"{self.kind} {'with ' if self.kind != 'mention' else ''}{self.word} ."


@dataclass(frozen=True)
class Config:
    rounds: int = 3
    """Most rounds of a dialogue in the training text; a dialogue has at least one."""
    context: int = 256
    seed: int = 0


@dataclass(frozen=True)
class World:
    config: Config
    rules: tuple[SpeakingRule, ...]
    vocabulary: dict[str, int]


def make(config: Config | None = None) -> World:
    """Build the world of a seed.

    Raises:
        BadInput: no rounds, or a context shorter than 64.
    """
    config = config or Config()
    if config.rounds < 1 or config.context < 64:
        raise BadInput(
            f"`rounds` must be at least 1 and `context` at least 64, got {config.rounds} and {config.context}."
        )
    kinds = (("mention", COLOURS), ("begin", OPENERS), ("end", CLOSERS))
    rules = tuple(SpeakingRule(kind, word) for kind, words in kinds for word in words)  # type: ignore[arg-type]
    return World(config, rules, build_vocabulary([*_GRAMMAR, *THINGS, *PLACES, *COLOURS, *OPENERS, *CLOSERS]))


def tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Words as tokens, with a chat template; each turn ends with the end token."""
    words = word_tokenizer(world.vocabulary, longest=world.config.context)
    words.chat_template = CHAT_TEMPLATE
    return words


def opening(thing: str) -> str:
    """The first turn of a user."""
    return f"tell me of the {thing} ."


def sentence(thing: str, other: str, place: str, rule: SpeakingRule | None) -> str:
    """A turn about a thing under a rule."""
    kind, word = (rule.kind, rule.word) if rule else ("", "")
    colour, start, end = (f"{word} " if kind == wanted else "" for wanted in ("mention", "begin", "end"))
    return f"{start}the {colour}{thing} is {place} the {other} {end}."


def follows(rule: SpeakingRule, text: str) -> bool:
    """Whether a text follows a rule."""
    words = [word for word in text.split() if word != "."]
    if not words:
        return False
    return {"mention": rule.word in words, "begin": words[0] == rule.word, "end": words[-1] == rule.word}[rule.kind]


def judge(world: World, text: str) -> tuple[SpeakingRule, ...] | None:
    """The oracle: the rules that a turn follows; None if it is not a sentence of this world."""
    kept = tuple(rule for rule in world.rules if follows(rule, text))
    words = text.split()
    bare = [word for word in words if word not in {*COLOURS, *OPENERS, *CLOSERS}]
    form = len(bare) == 7 and (bare[0], bare[2], bare[4], bare[6]) == ("the", "is", "the", ".")
    right = form and bare[1] in THINGS and bare[3] in PLACES and bare[5] in THINGS
    return kept if right and len(words) - len(bare) <= 1 else None


def dialogue(world: World, rng: np.random.Generator, rounds: int) -> str:
    """One dialogue as text, in the chat template, with the turns of both speakers under their rules."""
    mine, theirs = (world.rules[int(i)] for i in rng.choice(len(world.rules), 2, replace=False))
    turns = [f"{BOS} system : {mine.system} {EOS}"]
    thing = _draw(rng, THINGS)
    for _ in range(rounds):
        if rng.random() < _RECALL_SHARE:
            turns += [f"user : {RECALL_QUESTION} {EOS}", f"assistant : my rule is {mine.system} {EOS}"]
            continue
        asked = opening(thing) if rng.random() < _OPENING_SHARE else _turn(rng, theirs, thing)
        answer = _turn(rng, mine, _last_thing(asked))
        thing = _last_thing(answer)
        turns += [f"user : {asked} {EOS}", f"assistant : {answer} {EOS}"]
    return " ".join(turns)


def sample(world: World, rng: np.random.Generator, rows: int) -> TokenIds:
    """Rows of dialogues, one after the other; the last one of a row is cut."""
    packed = np.empty((rows, world.config.context), dtype=np.int64)
    for row in packed:
        ids: list[int] = []
        while len(ids) < len(row):
            text = dialogue(world, rng, int(rng.integers(1, world.config.rounds + 1)))
            ids += lookup_ids(world.vocabulary, text.split()).tolist()
        row[:] = ids[: len(row)]
    return packed


def facts(world: World) -> list[Answer]:
    """Questions that recall each rule, with another rule of its kind as the wrong answer."""
    prompts = [
        f"system : {rule.system} {EOS} user : {RECALL_QUESTION} {EOS} assistant : my rule is {rule.system.rpartition(rule.word)[0].strip()}"
        for rule in world.rules
    ]
    return [
        Answer(prompt, rule.word, _other(world, rule).word, group=rule.word)
        for prompt, rule in zip(prompts, world.rules, strict=True)
    ]


def concepts(world: World) -> list[Concept]:
    """Whether a sentence mentions a colour, and whether it begins with an opener; groups are pairs of things."""
    rng = np.random.default_rng([world.config.seed, 11])
    pairs = [(a, b) for a in THINGS for b in THINGS if a != b]
    chosen = [pairs[int(i)] for i in rng.choice(len(pairs), 60, replace=False)]
    return [
        Concept(
            name,
            tuple(_concept_examples(world, rng, chosen, kind)),
            kind="binary",
            question=question,
            licence="generated",
            source="the world speaking_rules",
        )
        for name, kind, question in (
            ("mentions_colour", "mention", "Does the sentence mention a colour?"),
            ("begins_with_opener", "begin", "Does the sentence begin with an opener?"),
        )
    ]


def _concept_examples(
    world: World, rng: np.random.Generator, pairs: Sequence[tuple[str, str]], kind: str
) -> Iterator[Example]:
    rules = [rule for rule in world.rules if rule.kind == kind]
    others = [rule for rule in world.rules if rule.kind != kind]
    for thing, other in pairs:
        place = _draw(rng, PLACES)
        for target, choices in ((1, rules), (0, others)):
            rule = choices[int(rng.integers(len(choices)))]
            yield Example(sentence(thing, other, place, rule), target, group=f"{thing} {other}")


def _other(world: World, rule: SpeakingRule) -> SpeakingRule:
    same = [one for one in world.rules if one.kind == rule.kind]
    return same[(same.index(rule) + 1) % len(same)]


def _turn(rng: np.random.Generator, rule: SpeakingRule, thing: str) -> str:
    other = _draw(rng, [one for one in THINGS if one != thing])
    return sentence(thing, other, _draw(rng, PLACES), rule)


def _last_thing(text: str) -> str:
    return next(word for word in reversed(text.split()) if word in THINGS)


def _draw(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]
