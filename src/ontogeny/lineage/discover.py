"""From a source to its stages: branches of a Hub repository, checkpoint folders of a trainer, one model, or a TOML file.

A name that exists as a folder is the folder, also where a repository of that name exists.
"""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ontogeny import suites
from ontogeny.errors import BadInput
from ontogeny.lineage import hub, weight_files
from ontogeny.lineage.checkpoint import Checkpoint, Stage, sort_by_step
from ontogeny.lineage.fetch import weight_fingerprint
from ontogeny.suites import ROOT_STAGE, BranchLabel


@dataclass(frozen=True)
class DiscoveredStages:
    """What was read from one source."""

    name: str
    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()
    """What a reader of the results should know: left-out branches, positions taken for steps, …"""


def discover_stages(source: str, *, stage: str, allow_pickle: bool, offline: bool) -> DiscoveredStages:
    """The stages of a folder or of a repository; the first of them is called `stage`.

    Raises:
        BadInput: it is neither, or holds no checkpoint.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return stages_from_folder(folder, stage, allow_pickle=allow_pickle)
    if folder.exists():
        raise BadInput(
            f"{source} is a file. Give a folder with config.json and weights, a lineage.toml, or a repository."
        )
    if not hub.looks_like_repository(source):
        raise BadInput(f"there is no folder {source}. Give a folder, or a repository like EleutherAI/pythia-160m.")
    return stages_from_hub(source, stage, allow_pickle=allow_pickle, offline=offline)


def stages_from_hub(
    repository: str, root: str, *, allow_pickle: bool = False, offline: bool = False
) -> DiscoveredStages:
    """The checkpoints that a repository keeps as branches or tags; without such, the one on `main`."""
    refs = hub.list_refs(repository, offline=offline)
    suite = suites.find_suite(repository)
    marks = {name: mark for name in refs if name != "main" and (mark := suite.parse(name)) is not None}
    marks, notes = _one_branch_per_step(marks)
    if "main" in refs and suite.main is not None:
        marks["main"] = suite.main
    elif not marks:
        only = "main" if "main" in refs else next(iter(refs), "main")
        marks = {only: BranchLabel(None)}
    elif "main" in refs and not suite.skip_main:
        mark, note = _place_of_main(repository, refs, marks, allow_pickle, offline)
        notes.append(note)
        if mark is not None:
            marks["main"] = mark
    seed = suite.train_seed(repository)
    known = [
        Checkpoint(
            repository,
            revision=name,
            stage=mark.stage or root,
            step=mark.step,
            tokens=mark.tokens,
            train_seed=seed if mark.train_seed is None else mark.train_seed,
            commit=refs.get(name),
        )
        for name, mark in marks.items()
    ]
    return DiscoveredStages(repository, _tree(known, marks.values(), root), tuple(notes))


def _one_branch_per_step(marks: Mapping[str, BranchLabel]) -> tuple[dict[str, BranchLabel], list[str]]:
    """One branch a step: where two carry the same, the first by name stays."""
    kept: dict[tuple[str, int | None], str] = {}
    notes = []
    for name in sorted(marks):
        mark = marks[name]
        place = (mark.stage, mark.step)
        if place in kept:
            notes.append(f"the branches {kept[place]} and {name} both carry step {mark.step}: {kept[place]} is used")
        else:
            kept[place] = name
    return {name: marks[name] for name in marks if name in kept.values()}, notes


def _place_of_main(
    repository: str, refs: Mapping[str, str], marks: Mapping[str, BranchLabel], allow_pickle: bool, offline: bool
) -> tuple[BranchLabel | None, str]:
    """Where `main` belongs: nowhere if it is the last checkpoint once more, else at the end."""
    ends: dict[str, tuple[int, str]] = {}
    for name, mark in marks.items():
        ends[mark.stage] = max(ends.get(mark.stage, (-1, "")), (mark.step or 0, name))
    for _, name in ends.values():
        if refs[name] == refs["main"]:
            return None, f"main is {name}"
    if offline:
        return None, "main is left out: without a network it cannot be compared with the last step"
    try:
        of_main = weight_fingerprint(Checkpoint(repository, "main", commit=refs["main"]), allow_pickle=allow_pickle)
        for _, name in ends.values():
            if of_main == weight_fingerprint(
                Checkpoint(repository, name, commit=refs[name]), allow_pickle=allow_pickle
            ):
                return None, f"main holds the weights of {name}"
    except BadInput as error:
        return None, f"main is left out: {error}"
    if len(ends) == 1:
        return BranchLabel(None, stage=next(iter(ends))), "main differs from the last step and stands after it"
    return BranchLabel(
        None, stage="main", parent=ROOT_STAGE
    ), "main differs from the end of every stage; which of them it continues is not known"


def _tree(checkpoints: list[Checkpoint], marks: Iterable[BranchLabel], root: str) -> tuple[Stage, ...]:
    """Stages from marks; a parent that is not there is replaced by the root."""
    parents = {mark.stage or root: mark.parent for mark in marks}
    stages = []
    for name, parent in parents.items():
        up = None if parent is None else parent or root
        if up is not None and up not in parents:
            up = root if root in parents and name != root else None
        stages.append(Stage(name, sort_by_step(c for c in checkpoints if c.stage == name), up))
    return parents_first(stages)


def parents_first(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """Parents before children, siblings by name of their first appearance."""
    waiting = list(stages)
    done: list[Stage] = []
    while waiting:
        ready = [s for s in waiting if s.parent is None or s.parent in {d.name for d in done}]
        if not ready:
            raise BadInput(
                f"the stages {', '.join(s.name for s in waiting)} have no beginning: their parents form a circle."
            )
        done.append(ready[0])
        waiting.remove(ready[0])
    return tuple(done)


def stages_from_folder(folder: Path, stage: str, *, allow_pickle: bool = False) -> DiscoveredStages:
    """The checkpoints in a folder: `checkpoint-N` of a trainer, other subfolders with a model each, or one model."""
    subs = sorted(
        (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "tmp-"))), key=_natural_order
    )
    name = folder.resolve().name
    if saved := {int(m[1]): p for p in subs if (m := re.fullmatch(r"checkpoint-(\d+)", p.name))}:
        checkpoints = [_trainer_checkpoint(path, stage, step) for step, path in sorted(saved.items())]
        return DiscoveredStages(name, (Stage(stage, _with_final(folder, checkpoints, allow_pickle)),))
    if (folder / "config.json").is_file() and _has_weights(folder):
        weight_files.check_model_folder(folder, allow_pickle=allow_pickle)
        return DiscoveredStages(name, (Stage(stage, (_trainer_checkpoint(folder, stage, None),)),))
    models = [p for p in subs if (p / "config.json").is_file()]
    if not models:
        raise BadInput(_nothing_in(folder, subs))
    steps, notes = _steps(models)
    checkpoints = [Checkpoint(str(p), stage=stage, step=s, tokens=t) for p, (s, t) in zip(models, steps, strict=True)]
    return DiscoveredStages(name, (Stage(stage, sort_by_step(checkpoints)),), notes)


def _natural_order(path: Path) -> list[tuple[int, int, str]]:
    """`step2` before `step10`."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", path.name) if part]


def _has_weights(folder: Path) -> bool:
    return weight_files.has_weights([path.name for path in folder.iterdir()])


def _trainer_checkpoint(folder: Path, stage: str, step: int | None) -> Checkpoint:
    """A folder of transformers' Trainer: `trainer_state.json` may know step and tokens."""
    try:
        state = weight_files.read_json(folder / "trainer_state.json")
    except BadInput:
        state = {}
    tokens, at = state.get("num_input_tokens_seen"), state.get("global_step")
    if step is None and isinstance(at, int) and at >= 0:
        step = at
    # What a damaged or foreign file says is not known.
    known = float(tokens) if isinstance(tokens, int | float) and 0 < tokens < math.inf else None
    return Checkpoint(str(folder), stage=stage, step=step, tokens=known)


def _with_final(folder: Path, checkpoints: list[Checkpoint], allow_pickle: bool) -> tuple[Checkpoint, ...]:
    """The trainer's final model in the top folder is one more checkpoint if its weights differ from the last one's."""
    if not ((folder / "config.json").is_file() and _has_weights(folder)):
        return tuple(checkpoints)
    last = checkpoints[-1]
    final = _trainer_checkpoint(folder, last.stage, None)
    try:
        if weight_fingerprint(final, allow_pickle=allow_pickle) == weight_fingerprint(last, allow_pickle=allow_pickle):
            return tuple(checkpoints)
    except BadInput:
        # One of the two is not whole: both are kept, and whoever fetches them hears why.
        pass
    if final.step is not None and final.step <= (last.step or 0):
        final = replace(final, step=None)
    return (*checkpoints, final)


def _steps(models: list[Path]) -> tuple[list[tuple[int | None, float | None]], tuple[str, ...]]:
    """Step and tokens of each folder from its name; where a name has no number, the place in the natural order of names."""
    if len(models) == 1:
        mark = suites.parse_branch(models[0].name)
        return [(mark.step, mark.tokens) if mark else (None, None)], ()
    found = [_step(path.name) for path in models]
    if None in found:
        found = _between([path.name for path in models]) or found
    known = [pair for pair in found if pair is not None]
    if len(known) < len(found):
        named = ", ".join(f"{path.name} = {place}" for place, path in enumerate(models[:4]))
        note = f"steps are places in the order of the folder names ({named}{', …' if len(models) > 4 else ''})"
        return [(place, None) for place in range(len(models))], (f"{note}; a lineage.toml can say otherwise",)
    steps = [step for step, _ in known]
    if len(set(steps)) < len(steps):
        twice = next(step for step in steps if steps.count(step) > 1)
        both = [path.name for path, step in zip(models, steps, strict=True) if step == twice]
        raise BadInput(
            f"{both[0]} and {both[1]} in {models[0].parent} both carry step {twice}. Write a lineage.toml with a stage each."
        )
    return list(known), ()


def _step(name: str) -> tuple[int, float | None] | None:
    mark = suites.parse_branch(name)
    if mark is not None and mark.step is not None:
        return mark.step, mark.tokens
    digits = re.findall(r"\d+", name)
    return (int(digits[-1]), None) if len(digits) == 1 else None


def _between(names: list[str]) -> list[tuple[int, float | None] | None]:
    """Steps where the names differ in one number only: `qwen3-sft-100`, `qwen3-sft-200`."""
    head = re.sub(r"\d+$", "", _common_prefix(names))
    tail = re.sub(r"^\d+", "", _common_prefix([name[::-1] for name in names])[::-1])
    middles = [name[len(head) : len(name) - len(tail)] for name in names]
    return [(int(middle), None) for middle in middles] if all(middle.isdecimal() for middle in middles) else []


def _common_prefix(names: list[str]) -> str:
    """The characters that all names begin with."""
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in same)


def _nothing_in(folder: Path, subs: list[Path]) -> str:
    inside = [path.name for path in folder.iterdir()]
    if not inside:
        return f"{folder} is empty. Give a folder with config.json and weights, or with checkpoint-N folders."
    if "config.json" in inside or _has_weights(folder):
        try:
            weight_files.check_model_folder(folder, allow_pickle=True)
        except BadInput as error:
            return str(error)
    hint = f" (it holds {', '.join(p.name for p in subs[:3])}{', …' if len(subs) > 3 else ''})" if subs else ""
    return f"{folder} holds no model{hint}: neither config.json with weights, nor checkpoint-N folders, nor folders with a config.json."
