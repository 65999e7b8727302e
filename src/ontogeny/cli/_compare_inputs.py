"""From options to the texts of a comparison: what is named, else what lies beside a raised lineage, else the library's own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from ontogeny.data.concept import Concept
    from ontogeny.jobs.compare.inputs import StudyInputs, VerdictQuestion


_LIBRARY_CONCEPTS = {"statements": ("truth_cities",), "requests": "refusal", "questions": "relations"}
_TOY_MODEL_CONCEPTS = {"statements": ("truth",), "requests": "forbidden", "questions": "two_hops", "texts": "register"}
"""Files in the folder concepts/ of a raised lineage."""


@dataclass(frozen=True)
class ComparisonTexts:
    """What was named on the command line; None is for the default to fill."""

    statements: Sequence[str] | None
    requests: str | None
    harmful: Path | None
    harmless: Path | None
    texts: Path | None
    questions: str | None
    verdicts: str | None
    ask: str | None
    shots: int | None
    pairing: str
    phrases: Sequence[str] | None
    template: str
    limit: int
    seed: int


def load_comparison_inputs(named: ComparisonTexts, views: str, lineage: Path) -> "StudyInputs":
    """The texts of the views that are asked for; what no view needs is not read.

    Raises:
        BadInput: a file or concept that cannot be read, one of two files that belong together, or a pairing that is none.
    """
    from ontogeny.jobs.compare.inputs import StudyInputs, parse_pairing
    from ontogeny.steering.refusal_score import REFUSAL_PHRASES

    wanted = {name.strip() for name in views.split(",")}
    beside = (lineage if lineage.is_dir() else lineage.parent) / "concepts"
    raised = lineage.exists() and (beside / f"{_TOY_MODEL_CONCEPTS['requests']}.jsonl").is_file()
    statements = list(named.statements or _default("statements", beside, raised))
    made = StudyInputs(
        question=_question(named),
        pairing=parse_pairing(named.pairing),
        phrases=tuple(named.phrases or (("i cannot",) if raised else REFUSAL_PHRASES)),
        template=named.template,
        seed=named.seed,
    )
    if wanted & {"truth", "knowledge"}:
        made = replace(made, statements=tuple(_concept(name, named) for name in statements))
    if "refusal" in wanted:
        made = replace(made, requests=_requests(named, beside, raised))
    if "confidence" in wanted:
        asked = _concept(named.questions or _default("questions", beside, raised)[0], named)
        made = replace(made, questions=asked.answers, neutral=_neutral(named, beside, raised))
        if not made.questions:
            raise BadInput(
                f"{asked.name} has no questions with a right and a wrong answer. Name others with --questions."
            )
    return made


def _default(what: str, beside: Path, raised: bool) -> tuple[str, ...]:
    names = (_TOY_MODEL_CONCEPTS if raised else _LIBRARY_CONCEPTS)[what]
    names = (names,) if isinstance(names, str) else tuple(names)
    return tuple(str(beside / f"{name}.jsonl") for name in names) if raised else names


def _concept(name: str, named: ComparisonTexts) -> "Concept":
    from ontogeny.cli._arguments import concept_from_argument

    return concept_from_argument(name, limit=named.limit or None, seed=named.seed)


def _requests(named: ComparisonTexts, beside: Path, raised: bool) -> "Concept":
    if (named.harmful is None) != (named.harmless is None):
        raise BadInput(
            "harmful and harmless requests belong together. Give both files, or one concept with --requests."
        )
    if named.harmful is None or named.harmless is None:
        return _concept(named.requests or _default("requests", beside, raised)[0], named)
    from ontogeny.data.concept import Concept
    from ontogeny.data.examples import Example

    examples = [
        Example(text, harmful, text)
        for path, harmful in ((named.harmful, True), (named.harmless, False))
        for text in dict.fromkeys(_lines(path))
    ]
    made = Concept("requests", tuple(examples), classes=("harmless", "harmful"), sign=-1)
    return made.limited(named.limit, named.seed) if named.limit else made


def _neutral(named: ComparisonTexts, beside: Path, raised: bool) -> tuple[str, ...]:
    """Texts that ask for nothing; by default the harmless requests, or what a raised model's world says."""
    if named.texts:
        found = _lines(named.texts)
    elif raised:
        found = list(_concept(str(beside / f"{_TOY_MODEL_CONCEPTS['texts']}.jsonl"), named).texts)
    else:
        found = [e.text for e in _requests(named, beside, raised).examples if not e.target]
    return tuple(dict.fromkeys(found))[: named.limit or None]


def _lines(path: Path) -> list[str]:
    """One text a line; of a table its texts."""
    if path.suffix in (".csv", ".tsv", ".jsonl"):
        from ontogeny.data.tables import read_table

        rows = [row.cells for row in read_table(path).rows]
        column = next((name for name in ("text", "instruction", "prompt", "goal") if rows and name in rows[0]), None)
        if column is None:
            raise BadInput(
                f"{path} has no column text, instruction, prompt or goal. Rename one, or give one text a line."
            )
        return [str(row[column]).strip() for row in rows if str(row[column]).strip()]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read ({error}). Give a text file with one text a line.") from None
    return [line.strip() for line in lines if line.strip()]


def _question(named: ComparisonTexts) -> "VerdictQuestion | None":
    if named.verdicts is None:
        if named.ask is not None or named.shots is not None:
            raise BadInput(
                "--ask and --shots go with --verdicts, the two words that a statement is judged with. Add them."
            )
        return None
    from ontogeny.jobs.compare.inputs import VerdictQuestion

    words = [word.strip() for word in named.verdicts.split(",")]
    if len(words) != 2 or not all(words) or words[0] == words[1]:
        raise BadInput(f"{named.verdicts!r} are no two verdicts. Write the one for true statements first: TRUE,FALSE.")
    suffix = " This statement is:" if named.ask is None else named.ask
    return VerdictQuestion(suffix, f" {words[0]}", f" {words[1]}", 4 if named.shots is None else named.shots)
