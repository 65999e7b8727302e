"""Inputs of a stage comparison, and the study plug-ins that read them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer
from ontogeny.data.templates import Template, is_chat_template, parse_template
from ontogeny.data.verdict_question import VerdictQuestion
from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from ontogeny.patching.prompt_pairs import PairingMode
from ontogeny.plugins import check_plugin, list_plugins, load_plugin
from ontogeny.records import Record
from ontogeny.steering.refusal_score import REFUSAL_PHRASES

STUDY_ALIASES = {"truth": "truthfulness"}
"""Former names of studies. Runs made under them are read and resumed under the new ones."""
_TEXT_FIELDS = ("statements", "requests", "neutral", "questions")
"""Fields of `StudyInputs` without a usable default."""


@dataclass(frozen=True, eq=False)
class StudyInputs:
    """Texts of a comparison; each study reads some of the fields."""

    statements: tuple[Concept, ...] = ()
    """True and false statements; several sets are held out in turn."""
    requests: Concept | None = None
    """Harmful (positive) and harmless requests."""
    neutral: tuple[str, ...] = ()
    """Texts on which next-token predictions are measured."""
    questions: tuple[Answer, ...] = ()
    """Prompts with a right and a wrong answer."""
    question: VerdictQuestion | None = None
    """Question that asks for a verdict on a statement; None: `verdict_question_for` the tokenizer."""
    phrases: tuple[str, ...] = REFUSAL_PHRASES
    """First words of refusals."""
    template: Template | None = None
    """Template in which requests are asked: none, own (of each stage), a file or a text for all stages; None: own if a stage has one."""
    pairing: PairingMode = "auto"
    """How prompt pairs are mined from the statements."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.template is not None:
            object.__setattr__(self, "template", parse_template(self.template))

    @property
    def texts(self) -> list[str]:
        """All texts that the models read, without duplicates."""
        every = [e.text for concept in self.statements for e in concept.examples]
        slot = "{}" if not isinstance(self.template, str) or is_chat_template(self.template) else self.template
        every += [slot.replace("{}", text) for text in self.instructions]
        every += [*self.neutral, *(a.prompt + answer for a in self.questions for answer in (a.right, a.wrong))]
        return list(dict.fromkeys(every))

    @property
    def instructions(self) -> list[str]:
        """The words of the requests, without their template."""
        return [e.text for e in (self.requests.examples if self.requests else ())]

    def missing(self, names: Iterable[str]) -> str | None:
        """The named texts that are empty, for an error message; None if all are given."""
        empty = [f"`{name}`" for name in names if name in _TEXT_FIELDS and not getattr(self, name)]
        return " and ".join(empty) or None

    def digest(self, names: Iterable[str]) -> list[Any]:
        """The named fields and the seed as plain values from which a unit key is hashed."""
        plain = {
            "statements": [[c.name, c.hash] for c in self.statements],
            "requests": self.requests and self.requests.hash,
            "questions": [[a.prompt, a.right, a.wrong, a.group] for a in self.questions],
            # Keys of earlier runs hold the text of a template, and {} for none.
            "template": "own" if self.template is True else self.template or "{}",
            # Keys of the first runs hold the class name Question.
            "question": repr(self.question).removeprefix("Verdict"),
        }
        return [*(plain[name] if name in plain else getattr(self, name) for name in names), self.seed]


@dataclass(frozen=True)
class StageSizes:
    """Sizes from which the cost of a study is estimated."""

    stages: int
    blocks: int


@dataclass(frozen=True)
class StageStudy:
    """A study plug-in: a module or package of `studies/` with `INPUTS`, `run` and, if needed, the other functions.

    `docs/add-a-study.md` shows a complete one.
    """

    name: str
    inputs: tuple[str, ...]
    """`INPUTS`: fields of `StudyInputs` that the study reads. Its texts must be given."""
    run: Callable[[Mapping[str, Model], StudyInputs, Any], Iterable[Record]]
    """`run(stages, inputs, settings)`: rows whose `stage`, and `other_stage` in the coords, are keys of `stages`."""
    settings: Callable[[StudyInputs], Any]
    """`settings(inputs)`: the settings of a comparison. Default: None."""
    needs: Callable[[StudyInputs], str | None]
    """`needs(inputs)`: missing inputs, or None if the study can run. Default: empty texts among `inputs`."""
    cost: Callable[[StudyInputs, StageSizes], float]
    """`cost(inputs, sizes)`: estimated tokens that pass through the models. Default: every text once per stage."""
    digest: Callable[[StudyInputs], list[Any]]
    """`digest(inputs)`: plain values that decide the numbers, for the unit key. Default: the fields of `inputs`."""
    unit: str
    """`UNIT`: its name in unit keys, if that is not `name`."""
    title: str
    """`TITLE`: its name in headings, if that is not `name` with a capital."""


def load_study(name: str) -> StageStudy:
    """The study of this name, or of this former name.

    Raises:
        BadInput: unknown name.
    """
    name = STUDY_ALIASES.get(name, name)
    if name in list_plugins("studies", defining="PRESETS"):
        raise BadInput(f"the study {name} trains its own models: run it with `ontogeny study run {name}`.")
    check_plugin("studies", name, defining="INPUTS")
    module = load_plugin("studies", name)
    names: tuple[str, ...] = module.INPUTS
    optional: dict[str, Callable[..., Any]] = {
        "settings": lambda _: None,
        "needs": lambda inputs: inputs.missing(names),
        "cost": lambda inputs, sizes: sizes.stages * text_tokens(inputs.texts),
        "digest": lambda inputs: inputs.digest(names),
    }
    functions = {key: getattr(module, key, default) for key, default in optional.items()}
    unit, title = getattr(module, "UNIT", name), getattr(module, "TITLE", name.replace("_", " ").capitalize())
    return StageStudy(name, names, module.run, **functions, unit=unit, title=title)


def text_tokens(texts: Sequence[str]) -> float:
    """Estimated number of tokens, at four characters each."""
    return sum(map(len, texts)) / 4


def study_names(text: str) -> list[str]:
    """Names of studies from a list such as `knowledge,truthfulness`, in its order; former names become the new ones.

    Raises:
        BadInput: unknown name, or an empty list.
    """
    names = dict.fromkeys(load_study(name.strip()).name for name in text.split(",") if name.strip())
    if not names:
        raise BadInput(
            f"`studies` must name at least one study: {', '.join(list_plugins('studies', defining='INPUTS'))}."
        )
    return list(names)


def select_studies(text: str, inputs: StudyInputs) -> list[str]:
    """`study_names` whose inputs are given.

    Raises:
        BadInput: unknown name, an empty list, or missing inputs.
    """
    names = study_names(text)
    for name in names:
        if missing := load_study(name).needs(inputs):
            raise BadInput(f"the study {name} needs {missing}: give them, or leave {name} out of `studies`.")
    return names
