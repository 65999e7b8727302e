"""Contrast pairs: one question with two answers, one of which shows a behaviour. A family of concepts, with persona statements beside it.

Multiple choice as in contrastive activation addition (Rimsky et al., arXiv:2312.06681): the two texts differ only in the letter of the
answer, and are read at it. Which letter is right varies from question to question, so that neither words nor letter predict the label,
unless the data prefer a letter. Statements (Perez et al., arXiv:2212.09251) are those of a person with the trait, or without it.
Questions that are near-copies are one group.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.data.grouping import group_by_keys, near_duplicate_ids

_COLUMNS = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
_PEREZ, _RIMSKY = "arXiv:2212.09251", "arXiv:2312.06681"


def letter_choice_plugin(name: str) -> tuple[tuple[download.DataSource, ...], Callable[..., Concept]]:
    """`SOURCES` and `concept` of the plug-in file `name`: questions with two letters to choose from."""
    return _BEHAVIOURS[name].sources, partial(_letter_choice_concept, name)


def persona_plugin(name: str) -> tuple[tuple[download.DataSource, ...], Callable[..., Concept]]:
    """`SOURCES` and `concept` of the plug-in file `name`: statements of a persona."""
    return (_PERSONAS[name].source,), partial(_persona_concept, name)


@dataclass(frozen=True)
class _Behaviour:
    sources: tuple[download.DataSource, ...]
    classes: tuple[str, str]
    question: str
    sign: Literal[1, -1] = -1
    licence: str = "MIT"
    paper: str = _RIMSKY
    reverse: bool = False
    """Whether label 1 is the letter of `answer_not_matching_behavior`: published files that name the answer without the behaviour."""


@dataclass(frozen=True)
class _Persona:
    source: download.DataSource
    classes: tuple[str, str]
    question: str


def _letter_choice_concept(name: str, seed: int = 0) -> Concept:
    """All questions, each with both letters; the same for each seed."""
    behaviour = _BEHAVIOURS[name]
    rows = [row for source in behaviour.sources for row in download.read_rows(source)]
    prompts = [_question_text(row) for row in rows]
    columns = _COLUMNS[:0:-1] if behaviour.reverse else _COLUMNS[1:]
    letters = [tuple(_letter(row[column]) for column in columns) for row in rows]
    groups = group_by_keys(prompts, near_duplicate_ids([text.split("Choices:")[0] for text in prompts]))
    examples, answers = [], []
    for i, (prompt, (yes, no), group) in enumerate(zip(prompts, letters, groups, strict=True)):
        examples += [Example(prompt + yes, True, group, f"q{i}"), Example(prompt + no, False, group, f"q{i}")]
        answers.append(Answer(prompt, yes, no, group))
    return Concept(
        name,
        tuple(examples),
        classes=behaviour.classes,
        answers=tuple(answers),
        sign=behaviour.sign,
        licence=behaviour.licence,
        source=download.cite_sources(*behaviour.sources, paper=behaviour.paper),
        question=behaviour.question,
    )


def _persona_concept(name: str, seed: int = 0) -> Concept:
    """All statements, label 1 where a person with the trait says yes; the same for each seed."""
    persona = _PERSONAS[name]
    rows = download.read_rows(persona.source)
    texts = [row["statement"].strip() for row in rows]
    groups = group_by_keys(texts, near_duplicate_ids(texts))
    targets = [row["answer_matching_behavior"].strip() == "Yes" for row in rows]
    answers = (
        Answer(f"{row['question'].strip()}\nAnswer:", " Yes" if yes else " No", " No" if yes else " Yes", group)
        for row, yes, group in zip(rows, targets, groups, strict=True)
    )
    return Concept(
        name,
        tuple(map(Example, texts, targets, groups)),
        classes=persona.classes,
        answers=tuple(answers),
        licence="CC-BY-4.0",
        source=download.cite_sources(persona.source, paper=_PEREZ),
        question=persona.question,
    )


def _question_text(row: dict[str, Any]) -> str:
    text = row["question"].strip().removesuffix("Answer:").rstrip()
    return f"{text}\n\nAnswer: ("


def _letter(answer: str) -> str:
    match = re.search(r"\w", answer)
    return match[0] if match else answer


def _perez(file: str, path: str, sha256: str, *columns: str) -> download.DataSource:
    commit = "84fcc677e52e1902d696c32cd1a6b663e70d3993"
    return download.DataSource(
        f"model_written_evals/{file}.jsonl", "anthropics/evals", f"{path}.jsonl", commit, sha256, (*columns, *_COLUMNS)
    )


def _perez_human(file: str, sha256: str) -> download.DataSource:
    return _perez(file, f"advanced-ai-risk/human_generated_evals/{file}", sha256)


def _perez_persona(file: str, sha256: str) -> download.DataSource:
    return _perez(f"persona_{file}", f"persona/{file}", sha256, "statement")


def _rimsky(folder: str, sha256: str) -> download.DataSource:
    return download.DataSource(
        f"caa/{folder}/generate_dataset.jsonl.gz",
        "EleutherAI/rnngineering",
        f"Datasets/generate/{folder}/generate_dataset.json",
        "b18a80e3f7e3259f21e2a6574aaed3a21954aac6",
        sha256,
        _COLUMNS,
    )


# fmt: off
_BEHAVIOURS: Mapping[str, _Behaviour] = {
    "corrigibility": _Behaviour(
        (_perez_human("corrigible-more-HHH", "77bf2986d88b0fdc3959e77b20c302ec14edff62bb5e0135a7134b877ade4293"),
         _perez_human("corrigible-less-HHH", "d796dc49ba66b9a15bb38dce8f7dc14e212e1f5bac6dc331d64f5fe3e377eec8"),
         _rimsky("corrigible-neutral-HHH", "e7a789f1f4b1243ea3559f7d4f3b511d435d57cd655d9bfc96d850785f58b7d5")),
        ("resists", "accepts"), "Does the answer accept a change of the model's goals?", sign=1,
        licence="CC-BY-4.0, MIT (neutral part)", paper=f"{_PEREZ}, {_RIMSKY}"),
    "hallucination": _Behaviour(
        (_rimsky("hallucination", "8b0eb0fd7c235c2d35fde4d54b108c01ae552c5dbb369fad03c1ddfb1d2c549f"),),
        ("corrects", "makes up"), "Does the answer play along with a false premise?"),
    "power_seeking": _Behaviour(
        (_perez_human("power-seeking-inclination", "a8a2094a1e404fb094b3d361e3049ecc06ecd2a26d0b4b827b4a83a98b6d886a"),),
        ("declines", "seeks"), "Does the answer seek power?", licence="CC-BY-4.0", paper=_PEREZ, reverse=True),
    "refusal_choice": _Behaviour(
        (_rimsky("refusal", "48f3ce5c017609b9d733f82f92fd63d074aa7d29bf7c4cc1d18155d87da244d1"),),
        ("complies", "refuses"), "Does the answer refuse?", sign=1),
    "survival_instinct": _Behaviour(
        (_rimsky("survival-instinct", "1dda5220455899f029d18731af2dd6515464c238d6c1ae43f1f87fcae06a637f"),),
        ("accepts", "resists"), "Does the answer resist being switched off?", reverse=True),
    "sycophancy": _Behaviour(
        (_rimsky("sycophancy", "b05f9811714384b0ac099ab0d9fa93aeb88f93cb92cdbaca3727c132c2fec00b"),),
        ("own view", "agrees with the user"), "Does the answer agree with the user's own view?"),
}
_PERSONAS: Mapping[str, _Persona] = {
    "agreeableness": _Persona(
        _perez_persona("agreeableness", "8caa0fa07946370fb4ec38dd82eda7d3a86591c1dc701d2e645ae33c3239f5ce"),
        ("disagreeable", "agreeable"), "Would an agreeable person say that?"),
    "conservatism": _Persona(
        _perez_persona("politically-conservative", "f1735811392691164c685da2ca693e3edebbde76198d53e65fe854cd0cf52b6f"),
        ("not conservative", "conservative"), "Would a political conservative say that?"),
    "risk_aversion": _Persona(
        _perez_persona("risk-averse", "0e22ad96b41189572fb4234855d42d9683c5762e7aa73e3cf01af3f378bd5064"),
        ("seeks risk", "avoids risk"), "Would somebody who avoids risk say that?"),
}
# fmt: on
