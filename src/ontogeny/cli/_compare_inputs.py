"""Texts of a comparison: those given as options, else those beside a toy lineage, else built-in concepts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ontogeny.cli._arguments import concept_from_argument, neutral_texts, read_text_lines
from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from ontogeny.data.concept import Concept
    from ontogeny.data.verdict_question import VerdictQuestion
    from ontogeny.jobs.compare.inputs import StudyInputs


_BUILT_IN = {"statements": "truth_cities", "requests": "refusal", "questions": "relations"}
_BESIDE_TOY_LINEAGE = {"statements": "truth", "requests": "forbidden", "questions": "two_hops", "neutral": "register"}
"""Files in the folder concepts/ of a toy lineage."""


@dataclass(frozen=True)
class ComparisonTexts:
    """Options that name texts; None is the default."""

    lineage: Path
    statements: Sequence[str] | None
    requests: str | None
    harmful: Path | None
    harmless: Path | None
    neutral: str | None
    questions: str | None
    limit: int
    seed: int

    def inputs(self, studies: Sequence[str], **options: Any) -> "StudyInputs":
        """The inputs of the studies. Texts that no study needs are not read.

        Raises:
            BadInput: a file or concept that cannot be read, or one of two files that belong together.
        """
        from ontogeny.jobs.compare.inputs import StudyInputs, load_study

        needed = {name for study in studies for name in load_study(study).inputs}
        read: dict[str, Any] = {
            "statements": self._statements,
            "requests": self._requests,
            "questions": self._answers,
            "neutral": self._neutral,
        }
        if self.is_toy:
            options.setdefault("phrases", ("i cannot",))
        return StudyInputs(**{name: read[name]() for name in read if name in needed}, **options, seed=self.seed)

    @property
    def _folder(self) -> Path:
        return (self.lineage if self.lineage.is_dir() else self.lineage.parent) / "concepts"

    @property
    def is_toy(self) -> bool:
        """Whether the concepts of a toy lineage lie beside the checkpoints."""
        return self.lineage.exists() and (self._folder / f"{_BESIDE_TOY_LINEAGE['requests']}.jsonl").is_file()

    def _concept(self, name: str | None, kind: str) -> "Concept":
        default = str(self._folder / f"{_BESIDE_TOY_LINEAGE[kind]}.jsonl") if self.is_toy else _BUILT_IN[kind]
        return concept_from_argument(name or default, limit=self.limit or None, seed=self.seed)

    def _statements(self) -> "tuple[Concept, ...]":
        return tuple(self._concept(name, "statements") for name in self.statements or (None,))

    def _answers(self) -> tuple[Any, ...]:
        concept = self._concept(self.questions, "questions")
        if not concept.answers:
            raise BadInput(f"{concept.name} has no questions with a right and a wrong answer: change --questions.")
        return concept.answers

    def _requests(self) -> "Concept":
        if (self.harmful is None) != (self.harmless is None):
            raise BadInput("--harmful and --harmless belong together: give both files, or one concept as --requests.")
        if self.harmful is None or self.harmless is None:
            concept = self._concept(self.requests, "requests")
            if any(example.chat for example in concept.examples):
                raise BadInput(
                    f"requests must be texts, {concept.name} has chats of several turns: give their last turns as a text column."
                )
            return concept
        from ontogeny.data.concept import Concept
        from ontogeny.data.examples import Example

        examples = [
            Example(text, harmful, text)
            for path, harmful in ((self.harmful, True), (self.harmless, False))
            for text in dict.fromkeys(line.strip() for line in read_text_lines(path))
        ]
        concept = Concept("requests", tuple(examples), classes=("harmless", "harmful"), sign=-1)
        return concept.limited(self.limit, self.seed) if self.limit else concept

    def _neutral(self) -> tuple[str, ...]:
        """Neutral texts; by default a concept of the toy lineage, or the harmless requests."""
        if self.neutral:
            texts = [text.strip() for text in neutral_texts(self.neutral)]
        elif self.is_toy:
            texts = [*self._concept(None, "neutral").texts]
        else:
            texts = [e.text for e in self._requests().examples if not e.target]
        return tuple(dict.fromkeys(texts))[: self.limit or None]


def verdict_question(verdicts: str | None, ask: str | None, shots: int | None) -> "VerdictQuestion | None":
    """The question that asks for a verdict; None for the default.

    Raises:
        BadInput: `ask` or `shots` without `verdicts`, or not two verdicts.
    """
    if verdicts is None:
        if ask is not None or shots is not None:
            raise BadInput("--ask and --shots need --verdicts, the words for true and false: add it.")
        return None
    from ontogeny.data.verdict_question import VerdictQuestion

    words = [word.strip() for word in verdicts.split(",")]
    if len(words) != 2 or not all(words) or words[0] == words[1]:
        raise BadInput(f"--verdicts must be two words, got {verdicts!r}: write the one for true first, as TRUE,FALSE.")
    given: dict[str, Any] = {"suffix": ask, "shots": shots}
    given = {name: value for name, value in given.items() if value is not None}
    return VerdictQuestion(true=f" {words[0]}", false=f" {words[1]}", **given)
