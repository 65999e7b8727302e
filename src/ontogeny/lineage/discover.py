"""Find the stages and checkpoints of a source: branches of a Hub repository, folders of a trainer, or a single model.

A folder takes precedence over a repository of the same name.
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
    """Stages found in one source."""

    name: str
    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()
    """Remarks for readers of the results: excluded branches, positions used as steps, …"""


def discover_stages(source: str, *, stage: str, allow_pickle: bool, offline: bool) -> DiscoveredStages:
    """The stages of a folder or repository; the first one gets the name `stage`.

    Raises:
        BadInput: the source is neither, or holds no checkpoint.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return stages_from_folder(folder, stage, allow_pickle=allow_pickle)
    if folder.exists():
        raise BadInput(
            f"{source} is a file: give a folder with config.json and weights, a lineage.toml, or a repository."
        )
    if not hub.looks_like_repository(source):
        raise BadInput(f"there is no folder {source}: give a folder, or a repository like EleutherAI/pythia-160m.")
    return stages_from_hub(source, stage, allow_pickle=allow_pickle, offline=offline)


def stages_from_hub(
    repository: str, root: str, *, allow_pickle: bool = False, offline: bool = False
) -> DiscoveredStages:
    """Checkpoints in the branches and tags of a repository; without such branches, the one on `main`."""
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
    """Keep one branch per step: of several, the first by name."""
    kept: dict[tuple[str, int | None], str] = {}
    notes = []
    for name in sorted(marks):
        mark = marks[name]
        place = (mark.stage, mark.step)
        if place in kept:
            notes.append(f"the branches {kept[place]} and {name} both have step {mark.step}: {kept[place]} is used")
        else:
            kept[place] = name
    return {name: marks[name] for name in marks if name in kept.values()}, notes


def _place_of_main(
    repository: str, refs: Mapping[str, str], marks: Mapping[str, BranchLabel], allow_pickle: bool, offline: bool
) -> tuple[BranchLabel | None, str]:
    """Position of `main`: None if it repeats the last checkpoint of a stage, else at the end; and a note."""
    ends: dict[str, tuple[int, str]] = {}
    for name, mark in marks.items():
        ends[mark.stage] = max(ends.get(mark.stage, (-1, "")), (mark.step or 0, name))
    for _, name in ends.values():
        if refs[name] == refs["main"]:
            return None, f"main is {name}"
    if offline:
        return None, "main is left out: it cannot be compared with the last step offline"
    try:
        main_weights = weight_fingerprint(
            Checkpoint(repository, "main", commit=refs["main"]), allow_pickle=allow_pickle
        )
        for _, name in ends.values():
            if main_weights == weight_fingerprint(
                Checkpoint(repository, name, commit=refs[name]), allow_pickle=allow_pickle
            ):
                return None, f"main holds the weights of {name}"
    except BadInput as error:
        return None, f"main is left out: {error}"
    if len(ends) == 1:
        return BranchLabel(None, stage=next(iter(ends))), "main differs from the last step and is placed after it"
    return BranchLabel(
        None, stage="main", parent=ROOT_STAGE
    ), "main differs from the end of every stage; its parent stage is unknown"


def _tree(checkpoints: list[Checkpoint], marks: Iterable[BranchLabel], root: str) -> tuple[Stage, ...]:
    """Stages from branch labels; a missing parent is replaced by the root."""
    parents = {mark.stage or root: mark.parent for mark in marks}
    stages = []
    for name, parent in parents.items():
        up = None if parent is None else parent or root
        if up is not None and up not in parents:
            up = root if root in parents and name != root else None
        stages.append(Stage(name, sort_by_step(c for c in checkpoints if c.stage == name), up))
    return parents_first(stages)


def parents_first(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """Sort stages so that parents come before children; otherwise keep their order."""
    waiting = list(stages)
    done: list[Stage] = []
    while waiting:
        ready = [s for s in waiting if s.parent is None or s.parent in {d.name for d in done}]
        if not ready:
            raise BadInput(
                f"stages must form a tree, but the parents of {', '.join(s.name for s in waiting)} form a circle: correct their parents."
            )
        done.append(ready[0])
        waiting.remove(ready[0])
    return tuple(done)


def stages_from_folder(folder: Path, stage: str, *, allow_pickle: bool = False) -> DiscoveredStages:
    """Checkpoints in a folder: `checkpoint-N` of a trainer, other subfolders with one model each, or a single model."""
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
    """A folder of transformers' Trainer, with step and tokens from `trainer_state.json` if present."""
    try:
        state = weight_files.read_json(folder / "trainer_state.json")
    except BadInput:
        state = {}
    tokens, saved_step = state.get("num_input_tokens_seen"), state.get("global_step")
    if step is None and isinstance(saved_step, int) and saved_step >= 0:
        step = saved_step
    # Ignore invalid values of damaged or foreign files.
    known = float(tokens) if isinstance(tokens, int | float) and 0 < tokens < math.inf else None
    return Checkpoint(str(folder), stage=stage, step=step, tokens=known)


def _with_final(folder: Path, checkpoints: list[Checkpoint], allow_pickle: bool) -> tuple[Checkpoint, ...]:
    """Add the trainer's final model in the top folder, unless its weights equal those of the last checkpoint."""
    if not ((folder / "config.json").is_file() and _has_weights(folder)):
        return tuple(checkpoints)
    last = checkpoints[-1]
    final = _trainer_checkpoint(folder, last.stage, None)
    try:
        if weight_fingerprint(final, allow_pickle=allow_pickle) == weight_fingerprint(last, allow_pickle=allow_pickle):
            return tuple(checkpoints)
    except BadInput:
        pass  # one of them is damaged: keep both, fetching raises the proper error
    if final.step is not None and final.step <= (last.step or 0):
        final = replace(final, step=None)
    return (*checkpoints, final)


def _steps(models: list[Path]) -> tuple[list[tuple[int | None, float | None]], tuple[str, ...]]:
    """Step and tokens of each folder from its name; if a name has no step, positions in the natural order of names."""
    if len(models) == 1:
        mark = suites.parse_branch(models[0].name)
        return [(mark.step, mark.tokens) if mark else (None, None)], ()
    found = [_step(path.name) for path in models]
    if None in found:
        found = _between([path.name for path in models]) or found
    known = [pair for pair in found if pair is not None]
    if len(known) < len(found):
        named = ", ".join(f"{path.name} = {place}" for place, path in enumerate(models[:4]))
        note = f"steps are positions in the order of the folder names ({named}{', …' if len(models) > 4 else ''})"
        return [(place, None) for place in range(len(models))], (f"{note}; set other steps in a lineage.toml",)
    steps = [step for step, _ in known]
    if len(set(steps)) < len(steps):
        twice = next(step for step in steps if steps.count(step) > 1)
        both = [path.name for path, step in zip(models, steps, strict=True) if step == twice]
        raise BadInput(
            f"folders of {models[0].parent} must have different steps, but {both[0]} and {both[1]} both have step {twice}: "
            "write a lineage.toml with a stage for each."
        )
    return list(known), ()


def _step(name: str) -> tuple[int, float | None] | None:
    mark = suites.parse_branch(name)
    if mark is not None and mark.step is not None:
        return mark.step, mark.tokens
    digits = re.findall(r"\d+", name)
    return (int(digits[-1]), None) if len(digits) == 1 else None


def _between(names: list[str]) -> list[tuple[int, float | None] | None]:
    """Steps of names that differ in one number only: `qwen3-sft-100`, `qwen3-sft-200`."""
    head = re.sub(r"\d+$", "", _common_prefix(names))
    tail = re.sub(r"^\d+", "", _common_prefix([name[::-1] for name in names])[::-1])
    middles = [name[len(head) : len(name) - len(tail)] for name in names]
    return [(int(middle), None) for middle in middles] if all(middle.isdecimal() for middle in middles) else []


def _common_prefix(names: list[str]) -> str:
    """Longest common prefix."""
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in same)


def _nothing_in(folder: Path, subs: list[Path]) -> str:
    inside = [path.name for path in folder.iterdir()]
    if not inside:
        return f"{folder} is empty: give a folder with config.json and weights, or with checkpoint-N folders."
    if "config.json" in inside or _has_weights(folder):
        try:
            weight_files.check_model_folder(folder, allow_pickle=True)
        except BadInput as error:
            return str(error)
    hint = f" (it holds {', '.join(p.name for p in subs[:3])}{', …' if len(subs) > 3 else ''})" if subs else ""
    return (
        f"{folder} holds no model{hint}: give a folder with config.json and weights, with checkpoint-N folders, or with folders "
        "that have a config.json."
    )
