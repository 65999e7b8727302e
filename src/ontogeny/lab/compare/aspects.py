"""The sides that stages are compared from: a function each, what it reads of the inputs, and about what it costs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ontogeny.concept import Answer, Concept
from ontogeny.errors import BadInput, unknown
from ontogeny.lab.compare.judging import Question, question_for
from ontogeny.lab.compare.knowledge_pairs import Pairing
from ontogeny.lab.refusal import PHRASES
from ontogeny.model import Model
from ontogeny.records import Record


@dataclass(frozen=True, eq=False)
class Inputs:
    """The texts of a comparison; each aspect takes its own."""

    statements: tuple[Concept, ...] = ()
    """True and false ones, for truth and knowledge."""
    requests: Concept | None = None
    """Harmful (positive) and harmless ones, for refusal."""
    neutral: tuple[str, ...] = ()
    """For the confidence of the next token."""
    questions: tuple[Answer, ...] = ()
    """With a right and a wrong answer, for calibration."""
    question: Question | None = None
    """How a verdict on a statement is asked for; None: whichever known way the tokenizer can say."""
    phrases: tuple[str, ...] = PHRASES
    """With what refusals begin."""
    template: str = "{}"
    """How a request is put to every stage."""
    pairing: Pairing = "auto"
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

    def told(self, aspect: str) -> list[Any]:
        """What of it decides an aspect's numbers."""
        statements = [[c.name, c.hash] for c in self.statements]
        told: dict[str, list[Any]] = {
            "truth": [statements, repr(self.question)],
            # Runs that were made before there was a choice hold what `auto` gives.
            "knowledge": [statements[:1], repr(self.question), *([] if self.pairing == "auto" else [self.pairing])],
            "refusal": [self.requests and self.requests.hash, self.phrases, self.template],
            "confidence": [self.neutral, [[a.prompt, a.right, a.wrong, a.group] for a in self.questions]],
        }
        return [*told[aspect], self.seed]


@dataclass(frozen=True)
class Aspect:
    run: Callable[[Mapping[str, Model], Inputs], Iterator[Record]]
    lacks: Callable[[Inputs], str | None]
    """What the inputs do not hold that it needs."""
    tokens: Callable[[Inputs, int, int], float]
    """About how many tokens go through the models, for so many stages of so many blocks."""


def _truth(models: Mapping[str, Model], inputs: Inputs) -> Iterator[Record]:
    from ontogeny.lab.compare.truth import TruthSettings, truth

    return truth(models, inputs.statements, TruthSettings(question=inputs.question, seed=inputs.seed))


def _knowledge(models: Mapping[str, Model], inputs: Inputs) -> Iterator[Record]:
    from ontogeny.lab.compare.knowledge import Settings, knowledge
    from ontogeny.lab.compare.knowledge_pairs import Asking, mined

    tokenizer = next(iter(models.values())).tokenizer
    how = inputs.question or question_for(tokenizer)
    asking = Asking(how.suffix, how.true, how.false, how.shots) if how else None
    pairs = mined(inputs.statements[0], tokenizer, pairing=inputs.pairing, asking=asking, seed=inputs.seed)
    return knowledge(models, pairs, Settings(seed=inputs.seed))


def _refusal(models: Mapping[str, Model], inputs: Inputs) -> Iterator[Record]:
    from ontogeny.lab.compare.refusal import refusal
    from ontogeny.lab.compare.refusal_prompts import of_concept
    from ontogeny.lab.compare.refusal_settings import RefusalSettings

    assert inputs.requests is not None
    harmful, harmless = of_concept(inputs.requests)
    settings = RefusalSettings(template=inputs.template, phrases=inputs.phrases, seed=inputs.seed)
    return refusal(models, harmful, harmless, settings)


def _confidence(models: Mapping[str, Model], inputs: Inputs) -> Iterator[Record]:
    from ontogeny.lab.compare.confidence import confidence
    from ontogeny.lab.compare.confidence_settings import ConfidenceSettings

    return confidence(models, inputs.neutral, inputs.questions, ConfidenceSettings(seed=inputs.seed))


def _length(texts: Sequence[str]) -> float:
    """Tokens, at four characters each."""
    return sum(map(len, texts)) / 4


def _truth_tokens(inputs: Inputs, stages: int, _: int) -> float:
    texts = [e.text for c in inputs.statements for e in c.examples]
    # Two tokens and a short question of the held-out third, along and against, for each vector and about 70 random ones.
    many = stages**2 if stages <= 4 else 2 * stages
    return stages * _length(texts) + (stages**2 * 4 + many * 140) * len(texts) * 0.3 * 6


def _knowledge_tokens(inputs: Inputs, stages: int, blocks: int) -> float:
    texts = [e.text for e in inputs.statements[0].examples]
    tokens = _length(texts) / len(texts)
    # Of 50 pairs, every token of every block from there on, in several modes and across stages.
    return 50 * tokens**2 / 2 * blocks / 2 * (stages * 4 + stages**2)


def _refusal_tokens(inputs: Inputs, stages: int, blocks: int) -> float:
    texts = [e.text for e in inputs.requests.examples] if inputs.requests else []
    return stages * _length(texts) * blocks * 2 + stages * 4 * min(len(texts), 200) * 20 * 25


def _confidence_tokens(inputs: Inputs, stages: int, _: int) -> float:
    texts = [*inputs.neutral, *(a.prompt + a.right for a in inputs.questions for _ in range(2))]
    return _length(texts) * (stages * 25 + stages**2 * 3)


ASPECTS: Mapping[str, Aspect] = {
    "knowledge": Aspect(_knowledge, lambda i: None if i.statements else "statements (--statements)", _knowledge_tokens),
    "truth": Aspect(_truth, lambda i: None if i.statements else "statements (--statements)", _truth_tokens),
    "refusal": Aspect(_refusal, lambda i: None if i.requests else "requests (--requests)", _refusal_tokens),
    "confidence": Aspect(
        _confidence,
        lambda i: (
            None if i.neutral and i.questions else "neutral texts (--texts) and questions with answers (--questions)"
        ),
        _confidence_tokens,
    ),
}


def asked_for(text: str, inputs: Inputs) -> list[str]:
    """Names of aspects from `knowledge,truth`, in the order of the panels.

    Raises:
        BadInput: no such aspect, or one without its inputs.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in ASPECTS:
            raise unknown("view", name, ASPECTS)
        if missing := ASPECTS[name].lacks(inputs):
            raise BadInput(f"{name} needs {missing}. Name them, or leave {name} out of --views.")
    if not names:
        raise BadInput(f"no views were asked for. Name some of {', '.join(ASPECTS)} with --views.")
    return [name for name in ASPECTS if name in names]
