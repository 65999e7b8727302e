"""Steps from the names of folders that hold one model each: whole numbers with their units, or a refusal; never a part of a number."""

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ontogeny import suites
from ontogeny.errors import BadInput
from ontogeny.lineage import manifest, weight_files
from ontogeny.suites import BranchLabel

_SIBLINGS = re.compile(
    r"(?:^|[-_/.])(seed|run|rank|trial|exp|experiment|fold|replica|version|v|size|lr|rep|copy|part|worker)[-_=]?(\d+(?:\.\d+)?(?:e-?\d+)?)(?![a-z0-9])",
    re.IGNORECASE,
)
"""Words whose number counts runs, not steps."""
_DATE = re.compile(r"(?<!\d)(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])(?!\d)")
_EXPONENT = re.compile(r"(?<![\w.])\d+e\d+(?![\w.])", re.IGNORECASE)
_WHOLE = re.compile(r"(\d+(?:,\d{3})*(?:\.\d+)?)([kmb]?)", re.IGNORECASE)
_SIZE_KEYS = ("hidden_size", "n_embd", "d_model", "num_hidden_layers", "n_layer", "num_layers", "intermediate_size")


def steps_of_folders(folders: Sequence[Path]) -> tuple[dict[Path, BranchLabel], tuple[str, ...]]:
    """Step, tokens and stage of each folder, and notes; words without a number (`final`, `best`) have no step.

    Without any number the steps are places from 1 in the order of the names.

    Raises:
        BadInput: a number cannot be read as a step, two folders have the same step, or the folders are siblings such as seeds.
    """
    names = [path.name for path in folders]
    labels = {path: suites.parse_branch(path.name) for path in folders}
    if len(folders) == 1:
        return {folders[0]: labels[folders[0]] or BranchLabel(None)}, ()
    _refuse_siblings(folders)
    words = [path for path in folders if not re.search(r"\d", path.name)]
    unknown = [path for path in folders if path not in words and labels[path] is None]
    if (unknown and all(map(_DATE.search, names))) or all(map(_DATE.fullmatch, names)):
        return _places(folders)
    if len(words) == len(folders) or (unknown and not re.search(r"\d", "".join(_differing_parts(names)))):
        return _places(folders)
    if unknown and any(map(_EXPONENT.search, names)):
        raise _unreadable(folders, next(filter(_EXPONENT.search, names)))
    if unknown:
        read = _different_numbers([path.name for path in folders if path not in words]) or [
            _only_number(path.name) for path in folders if path not in words
        ]
        numbered = [path for path in folders if path not in words]
        if None in read:
            raise _unreadable(folders, numbered[read.index(None)].name)
        _refuse_sizes(folders)
        labels |= {path: BranchLabel(step) for path, step in zip(numbered, read, strict=True)}
    found = {path: label or BranchLabel(None) for path, label in labels.items()}
    _refuse_equal_steps(found)
    return found, ()


def _places(folders: Sequence[Path]) -> tuple[dict[Path, BranchLabel], tuple[str, ...]]:
    named = ", ".join(f"{path.name} = {place}" for place, path in enumerate(folders[:4], 1))
    note = f"steps are positions in the order of the folder names ({named}{', …' if len(folders) > 4 else ''})"
    labels = {path: BranchLabel(place) for place, path in enumerate(folders, 1)}
    return labels, (f"{note}; set other steps in a lineage.toml",)


def _refuse_siblings(folders: Sequence[Path]) -> None:
    """Refuse folders of several runs: seeds, folds, learning rates."""
    marks = [tuple(_SIBLINGS.findall(path.name)) for path in folders]
    if all(marks) and len(set(marks)) > 1:
        word = marks[0][0][0]
        raise BadInput(
            f"the folders of {folders[0].parent} ({_listed(folders)}) differ in their {word}, so they are runs and not steps of one: "
            + manifest.proposed(folders[0].parent, [path.name for path in folders], siblings=True)
        )


def _refuse_sizes(folders: Sequence[Path]) -> None:
    """Refuse models of different sizes."""
    sizes = {}
    for path in folders:
        try:
            config = weight_files.read_json(weight_files.config_folder(path) / "config.json")
        except BadInput:
            continue
        sizes[path] = str([config.get(key) for key in _SIZE_KEYS])
    if len(set(sizes.values())) > 1:
        raise BadInput(
            f"the folders of {folders[0].parent} ({_listed(folders)}) hold models of different sizes, so they are not steps of one run: "
            + manifest.proposed(folders[0].parent, [path.name for path in folders], siblings=True)
        )


def _refuse_equal_steps(labels: Mapping[Path, BranchLabel]) -> None:
    seen: dict[tuple[str, int], Path] = {}
    for path, label in labels.items():
        if label.step is None:
            continue
        if (other := seen.get((label.stage, label.step))) is not None:
            raise BadInput(
                f"folders of {path.parent} must have different steps, but {other.name} and {path.name} both have step {label.step}: "
                "write a lineage.toml with a stage for each."
            )
        seen[label.stage, label.step] = path


def _unreadable(folders: Sequence[Path], name: str) -> BadInput:
    return BadInput(
        f"the steps of the folders of {folders[0].parent} ({_listed(folders)}) cannot be read from their names, first {name}: rename them "
        "to step1000, step2000, …, or write a lineage.toml with a stage for each."
    )


def _listed(folders: Sequence[Path]) -> str:
    return ", ".join(path.name for path in folders[:4]) + (", …" if len(folders) > 4 else "")


def _only_number(name: str) -> int | None:
    """The number of a name that holds a single one, between separators: `early-100`, `100_late`."""
    if len(re.findall(r"\d+(?:[.,]\d+)*", name)) != 1:
        return None
    match = re.search(rf"(?:^|[-_/=.])({_WHOLE.pattern})(?=$|[-_/])", name, re.IGNORECASE)
    return suites.whole_number(match[2], match[3]) if match else None


def _different_numbers(names: Sequence[str]) -> list[int | None]:
    """Steps of names that differ in one number only: `qwen3-sft-100`, `qwen3-sft-200`."""
    middles = [_WHOLE.fullmatch(part) for part in _differing_parts(names)]
    return [suites.whole_number(m[1], m[2]) if m else None for m in middles] if all(middles) else []


def _differing_parts(names: Sequence[str]) -> list[str]:
    """Rest of each name without their common beginning and end; numbers and their units stay whole."""
    head = re.sub(r"[\d.,]+$", "", _common_prefix(names))
    tail = re.sub(
        r"^[\d.,]*(?:_\d{3}(?!\d))*(?:[kmb](?=$|[-_/.]))?",
        "",
        _common_prefix([name[::-1] for name in names])[::-1],
        flags=re.IGNORECASE,
    )
    return [name[len(head) : max(len(head), len(name) - len(tail))] for name in names]


def _common_prefix(names: Sequence[str]) -> str:
    """Longest common prefix."""
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in same)
