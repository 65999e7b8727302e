"""Inputs of a stage comparison, and the protocol of the studies that use them."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, get_args

from transformers import PreTrainedTokenizerBase

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer
from ontogeny.errors import BadInput, unknown_name
from ontogeny.models.model import Model
from ontogeny.plugins import list_plugins, load_plugin
from ontogeny.records import Record
from ontogeny.steering.refusal_score import REFUSAL_PHRASES


@dataclass(frozen=True)
class VerdictQuestion:
    """What asks for a verdict, and the two verdicts."""

    suffix: str
    true: str
    false: str
    shots: int
    """Statements with their verdicts before each one that is asked about, half of them true."""

    def verdicts(self, tokenizer: PreTrainedTokenizerBase) -> "VerdictTokens | None":
        """The tokens that tell the verdicts apart; None where the tokenizer does not know them."""
        before = f"so .{self.suffix}"
        known = tokenizer(before, add_special_tokens=False)["input_ids"]
        both = [tokenizer(before + word, add_special_tokens=False)["input_ids"] for word in (self.true, self.false)]
        if any(ids[: len(known)] != known for ids in both):
            return None
        true, false = (ids[len(known) :] for ids in both)
        alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(true, false, strict=False)))
        if alike >= min(len(true), len(false)) or tokenizer.unk_token_id in (true[alike], false[alike]):
            return None
        return VerdictTokens(tuple(true[:alike]), true[alike], false[alike])


@dataclass(frozen=True)
class VerdictTokens:
    shared: tuple[int, ...]
    """Tokens that both begin with: a space, where that is a token of its own."""
    true: int
    false: int


VERDICT_QUESTIONS = (
    VerdictQuestion(" This statement is:", " TRUE", " FALSE", 4),
    VerdictQuestion("", " right", " wrong", 0),
)


def verdict_question_for(tokenizer: PreTrainedTokenizerBase) -> VerdictQuestion | None:
    """The first of the known questions whose verdicts a tokenizer can say."""
    return next((question for question in VERDICT_QUESTIONS if question.verdicts(tokenizer)), None)


PairingMode = Literal["auto", "recall", "same_object", "one_span"]


def parse_pairing(name: str) -> PairingMode:
    """The pairing of this name.

    Raises:
        BadInput: there is none.
    """
    if name not in get_args(PairingMode):
        raise unknown_name("pairing", name, get_args(PairingMode))
    return cast(PairingMode, name)


@dataclass(frozen=True, eq=False)
class StudyInputs:
    """The texts of a comparison; each aspect takes its own."""

    statements: tuple[Concept, ...] = ()
    """True and false ones, for truth and knowledge."""
    requests: Concept | None = None
    """Harmful (positive) and harmless ones, for refusal."""
    neutral: tuple[str, ...] = ()
    """For the confidence of the next token."""
    questions: tuple[Answer, ...] = ()
    """With a right and a wrong answer, for calibration."""
    question: VerdictQuestion | None = None
    """How a verdict on a statement is asked for; None: whichever known way the tokenizer can say."""
    phrases: tuple[str, ...] = REFUSAL_PHRASES
    """With what refusals begin."""
    template: str = "{}"
    """How a request is put to every stage."""
    pairing: PairingMode = "auto"
    """How pairs are mined from the statements, for knowledge."""
    seed: int = 0

    @property
    def texts(self) -> list[str]:
        """All that is put to the models, for the preflight."""
        every = [e.text for concept in self.statements for e in concept.examples]
        every += self.framed
        every += [*self.neutral, *(a.prompt + answer for a in self.questions for answer in (a.right, a.wrong))]
        return list(dict.fromkeys(every))

    @property
    def framed(self) -> list[str]:
        """The requests as they are put to every stage."""
        return [self.template.replace("{}", e.text) for e in (self.requests.examples if self.requests else ())]


class StageStudy(Protocol):
    """A study plug-in: one package of `ontogeny.studies`, which exports these names."""

    UNIT: str
    """Its name in the unit keys of a run."""

    def missing_inputs(self, inputs: StudyInputs) -> str | None:
        """The fields of the inputs that it needs and that are empty; None if it can run."""

    def input_digest(self, inputs: StudyInputs) -> list[Any]:
        """The parts of the inputs that decide its numbers, for its unit key."""

    def count_tokens(self, inputs: StudyInputs, stages: int, blocks: int) -> float:
        """Estimated tokens that pass through the models, for so many stages of so many blocks."""

    def run(self, models: Mapping[str, Model], inputs: StudyInputs) -> Iterator[Record]:
        """Its rows."""


def load_study(name: str) -> StageStudy:
    """The study of this name.

    Raises:
        BadInput: there is no such study.
    """
    return cast(StageStudy, load_plugin("studies", name))


def text_tokens(texts: Sequence[str]) -> float:
    """Estimated number of tokens, at four characters each."""
    return sum(map(len, texts)) / 4


def select_studies(text: str, inputs: StudyInputs) -> list[str]:
    """Study names from a list such as `knowledge,truthfulness`.

    Raises:
        BadInput: no such study, or one whose inputs are missing.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if missing := load_study(name).missing_inputs(inputs):
            raise BadInput(f"{name} needs {missing}. Give them, or leave {name} out of `studies`.")
    if not names:
        raise BadInput(f"`studies` must name at least one study: {', '.join(list_plugins('studies'))}.")
    return sorted(set(names))


def question_digest(question: VerdictQuestion | None) -> str:
    """The verdict question in a unit key; the class was called Question when the first runs were made."""
    return repr(question).removeprefix("Verdict")
