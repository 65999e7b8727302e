"""Writing a concept as a JSONL file."""

import json
from pathlib import Path

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer
from ontogeny.storage.files import atomic_path


def write_concept(concept: Concept, folder: Path) -> Path:
    """Write `folder/{name}.jsonl`, which `Concept.from_file` reads back as the same concept; returns the path."""
    names = concept.classes or ("false", "true")
    rows: list[dict[str, object]] = [
        {
            "text": example.text,
            "label": example.target if concept.kind == "number" else names[int(example.target)],
            "kind": concept.kind,
            "group": example.group,
            **({} if example.pair is None else {"pair": example.pair}),
        }
        for example in concept.examples
    ]
    for row, answer in zip(rows, _answers_by_example(concept), strict=True):
        if answer is not None:
            row |= {"prompt": answer.prompt, "right": answer.right, "wrong": answer.wrong}
    path = folder / f"{concept.name}.jsonl"
    with atomic_path(path) as temporary:
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def _answers_by_example(concept: Concept) -> list[Answer | None]:
    """For each example an answer of its group, until each answer is used once."""
    waiting: dict[str, list[Answer]] = {}
    for answer in concept.answers:
        waiting.setdefault(answer.group, []).append(answer)
    return [waiting[e.group].pop(0) if waiting.get(e.group) else None for e in concept.examples]
