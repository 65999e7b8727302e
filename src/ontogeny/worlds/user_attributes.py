"""User attributes: dialogues in which a user's words say who the user is, a little in each turn, and the assistant answers accordingly.

Two neutral attributes: how much the user knows of machines, and how formally they speak. A turn of the user has one word for each, mostly
of the user's own class. The assistant never sees the classes: it guesses from the user's words so far, in proportion to the exact
posterior, and words its answer for the guess, in either order, so that its first word may depend on either attribute. Sometimes it is
asked and names the guess (TalkTuner, arXiv:2406.07882, on neutral attributes).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from ontogeny.data.chats import Chat
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.errors import BadInput
from ontogeny.worlds._concepts import world_concept
from ontogeny.worlds._vocabulary import BOS, EOS, TokenIds, build_vocabulary, lookup_ids, word_tokenizer


@dataclass(frozen=True)
class UserAttribute:
    """An attribute of a user, with the words that show it."""

    name: str
    classes: tuple[str, ...]
    cues: tuple[tuple[str, ...], ...]
    """Words of the user, by class."""
    wording: tuple[tuple[str, ...], ...]
    """Words of an answer for a user of each class."""
    reliability: float
    """Probability that a word of the user is of the user's own class; all other classes share the rest."""

    @property
    def suffix(self) -> str:
        """Beginning of the assistant's sentence about the attribute."""
        return f"i think the {self.name} of this user is"


EXPERTISE = UserAttribute(
    "expertise",
    ("novice", "amateur", "expert"),
    (
        ("button", "handle", "cover", "wheel"),
        ("pump", "filter", "switch", "valve"),
        ("rotor", "flange", "gasket", "manifold"),
    ),
    (("press", "turn", "open"), ("adjust", "clean", "tighten"), ("calibrate", "machine", "realign")),
    0.7,
)
FORMALITY = UserAttribute(
    "formality",
    ("casual", "formal"),
    (("hey", "yo", "hi", "sup"), ("greetings", "dear", "good-day", "salutations")),
    (("sure", "okay", "cool"), ("certainly", "indeed", "gladly")),
    0.8,
)
ATTRIBUTES = (EXPERTISE, FORMALITY)
MACHINES = (
    "lamp", "mower", "kettle", "mixer", "heater", "drill", "fan", "toaster", "cleaner", "scooter", "boiler", "printer",
)  # fmt: skip
REQUESTS = ("explain", "describe", "show", "mend")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %} {{ turn['role'] }} : {{ turn['content'] }} {{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %} assistant :{% endif %}"
)
_MANNER_LAST = 0.5
"""Share of answers whose last word shows the formality, in place of the first."""
_GRAMMAR = ("user", "assistant", ":", "the", "of", "my", ".", "now", "what", "is", "?", "i", "think", "this")


@dataclass(frozen=True)
class Config:
    rounds: int = 6
    """Most rounds of a dialogue in the training text; a dialogue has at least one."""
    asked: float = 0.1
    """Share of the user's turns that ask for a guess."""
    dialogues: int = 240
    """Labelled dialogues of the concepts."""
    labelled_rounds: int = 4
    """Most rounds of a labelled dialogue, none of which asks for a guess."""
    context: int = 128
    seed: int = 0


@dataclass(frozen=True)
class World:
    config: Config
    vocabulary: dict[str, int]


def make(config: Config | None = None) -> World:
    """Build the world of a seed.

    Raises:
        BadInput: no rounds, a share outside 0 to 1, few dialogues, or a context that is too short for a labelled dialogue.
    """
    config = config or Config()
    if min(config.rounds, config.labelled_rounds) < 1 or not 0 <= config.asked < 1 or config.dialogues < 40:
        raise BadInput(
            f"`rounds` and `labelled_rounds` must be at least 1, `asked` a share below 1 and `dialogues` at least 40, got {config.rounds}, "
            f"{config.labelled_rounds}, {config.asked:g} and {config.dialogues}."
        )
    if config.context < (least := 20 * config.labelled_rounds + 16):
        raise BadInput(
            f"`context` must be at least {least} for {config.labelled_rounds} `labelled_rounds`, got {config.context}: raise it."
        )
    words = [word for a in ATTRIBUTES for part in (*a.cues, *a.wording, a.classes, (a.name,)) for word in part]
    return World(config, build_vocabulary([*_GRAMMAR, *MACHINES, *REQUESTS, *words]))


def tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Words as tokens, with a chat template; each turn ends with the end token."""
    words = word_tokenizer(world.vocabulary, longest=world.config.context)
    words.chat_template = CHAT_TEMPLATE
    return words


def posterior(attribute: UserAttribute, texts: Sequence[str]) -> NDArray[np.float64]:
    """The oracle of a user: the exact probability of each class, given the user's turns; equal ones without a cue."""
    count = len(attribute.classes)
    other = (1 - attribute.reliability) / (count - 1)
    shares = np.ones(count)
    for word in " ".join(texts).split():
        for c, cues in enumerate(attribute.cues):
            if word in cues:
                shares *= np.where(np.arange(count) == c, attribute.reliability, other)
    normalised: NDArray[np.float64] = shares / shares.sum()
    return normalised


def judge(world: World, text: str) -> dict[str, int] | None:
    """The oracle of an answer: for which class of each attribute it is worded; None if it does not answer a request."""
    words = text.split()
    known = {word: (a.name, c) for a in ATTRIBUTES for c, own in enumerate(a.wording) for word in own}
    worded = dict(known[word] for word in words if word in known)
    bare = [word for word in words if word not in known]
    form = len(words) == 6 and len(bare) == 4 and (bare[0], bare[2:]) == ("the", ["now", "."]) and bare[1] in MACHINES
    return worded if form and len(worded) == len(ATTRIBUTES) else None


def dialogue(
    world: World, rng: np.random.Generator, classes: Sequence[int], rounds: int, *, asked: float = 0.0
) -> Chat:
    """A dialogue with a user of these classes, in the order of `ATTRIBUTES`; the last turn is the assistant's."""
    said: list[str] = []
    chat: list[tuple[str, str]] = []
    for _ in range(rounds):
        if rng.random() < asked:
            attribute = ATTRIBUTES[int(rng.integers(len(ATTRIBUTES)))]
            name = attribute.classes[_guess(rng, attribute, said)]
            chat += [("user", f"what is my {attribute.name} ?"), ("assistant", f"{attribute.suffix} {name} .")]
            continue
        part, opener = (_cue(rng, a, c) for a, c in zip(ATTRIBUTES, classes, strict=True))
        machine = _draw(rng, MACHINES)
        said.append(f"{opener} {_draw(rng, REQUESTS)} the {part} of my {machine} .")
        advice, manner = (_draw(rng, a.wording[_guess(rng, a, said)]) for a in ATTRIBUTES)
        last = rng.random() < _MANNER_LAST
        answer = f"{advice} the {machine} now {manner} ." if last else f"{manner} {advice} the {machine} now ."
        chat += [("user", said[-1]), ("assistant", answer)]
    return tuple(chat)


def labelled_dialogues(
    world: World, rng: np.random.Generator, count: int, rounds: Sequence[int]
) -> list[tuple[Chat, tuple[int, ...]]]:
    """Dialogues with the classes of their users, all combinations of classes equally often.

    Args:
        rounds: Numbers of rounds, each equally likely.
    """
    every = [(a, b) for a in range(len(EXPERTISE.classes)) for b in range(len(FORMALITY.classes))]
    order = rng.permutation(np.arange(count) % len(every))
    return [(dialogue(world, rng, every[i], int(rng.choice(list(rounds)))), every[i]) for i in order]


def sample(world: World, rng: np.random.Generator, rows: int) -> TokenIds:
    """Rows of dialogues, one after the other; the last one of a row is cut."""
    packed = np.empty((rows, world.config.context), dtype=np.int64)
    for row in packed:
        words: list[str] = []
        while len(words) < len(row):
            classes = [int(rng.integers(len(a.classes))) for a in ATTRIBUTES]
            rounds = int(rng.integers(1, world.config.rounds + 1))
            words += chat_words(dialogue(world, rng, classes, rounds, asked=world.config.asked))
        row[:] = lookup_ids(world.vocabulary, words[: len(row)])
    return packed


def answer_mask(world: World, ids: TokenIds) -> NDArray[np.bool_]:
    """True at the words of the assistant's turns and at their end tokens."""
    speaks = ids == world.vocabulary["assistant"]
    # The number of turns that have ended before each token.
    ended = np.cumsum(ids == world.vocabulary[EOS], 1) - (ids == world.vocabulary[EOS])
    started = np.where(speaks, ended, -1)
    mask: NDArray[np.bool_] = np.maximum.accumulate(started, 1) == ended
    return mask & ~speaks & (ids != world.vocabulary[":"])


def chat_words(chat: Chat) -> list[str]:
    """The words of a chat in its template."""
    return [BOS, *(word for role, text in chat for word in (role, ":", *text.split(), EOS))]


def facts(world: World) -> list[Answer]:
    """A word of an answer for a user whose turn has one cue, against that for a user of another class."""
    answers = []
    for a in ATTRIBUTES:
        for c, cues in enumerate(a.cues):
            for i, cue in enumerate(cues):
                machine = MACHINES[i]
                asked = (
                    f"hey explain the {cue} of my {machine} ."
                    if a is EXPERTISE
                    else f"{cue} explain the pump of my {machine} ."
                )
                other = a.wording[(c + 1) % len(a.wording)][0]
                prompt = f"user : {asked} {EOS} assistant :"
                answers.append(Answer(prompt, a.wording[c][0], other, group=f"{a.name} {cue}"))
    return answers


def concepts(world: World) -> list[Concept]:
    """The attributes, in dialogues with their answers; each dialogue is a group."""
    rng = np.random.default_rng([world.config.seed, 21])
    chats = labelled_dialogues(world, rng, world.config.dialogues, range(1, world.config.labelled_rounds + 1))
    return [labelled_concept(attribute, chats) for attribute in ATTRIBUTES]


def labelled_concept(attribute: UserAttribute, chats: Sequence[tuple[Chat, tuple[int, ...]]]) -> Concept:
    """One attribute of labelled dialogues as a concept."""
    place, binary = ATTRIBUTES.index(attribute), len(attribute.classes) == 2
    examples = [
        Example(
            " ".join(chat_words(chat)[1:]),
            bool(classes[place]) if binary else classes[place],
            f"dialogue {number}",
            chat=chat,
        )
        for number, (chat, classes) in enumerate(chats)
    ]
    return world_concept(
        "user_attributes",
        f"user_{attribute.name}",
        examples,
        f"What is the {attribute.name} of the user?",
        classes=attribute.classes,
        kind="binary" if binary else "classes",
    )


def _guess(rng: np.random.Generator, attribute: UserAttribute, said: Sequence[str]) -> int:
    return int(rng.choice(len(attribute.classes), p=posterior(attribute, said)))


def _cue(rng: np.random.Generator, attribute: UserAttribute, own: int) -> str:
    others = [c for c in range(len(attribute.classes)) if c != own]
    shown = own if rng.random() < attribute.reliability else others[int(rng.integers(len(others)))]
    return _draw(rng, attribute.cues[shown])


def _draw(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]
