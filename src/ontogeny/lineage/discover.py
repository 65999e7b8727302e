"""Find the stages and checkpoints of a source: branches of a Hub repository, folders of a trainer, or a single model.

A folder takes precedence over a repository of the same name.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ontogeny import suites
from ontogeny.errors import BadInput
from ontogeny.lineage import folder_names, hub, project, weight_files
from ontogeny.lineage.checkpoint import Checkpoint, Stage, sort_by_step
from ontogeny.lineage.fetch import checkpoint_files, weight_fingerprint
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
    for name in [*(name for _, name in ends.values()), *marks]:
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
    """Checkpoints in a folder: `checkpoint-N` of a trainer, a single model, subfolders with one model each, or with one stage each.

    Raises:
        BadInput: there is no checkpoint, or the order of several is not clear from their names.
    """
    subs = _subfolders(folder)
    name = folder.resolve().name
    if numbered_folders := frozenset(_trainer_steps(subs).values()):
        checkpoints, notes = _with_final(folder, _trainer_checkpoints(subs, stage), allow_pickle)
        others = [path for path in subs if path not in numbered_folders]
        checkpoints, more = _words_last(
            [path for path in others if weight_files.is_model_folder(path)], checkpoints, stage, allow_pickle
        )
        beside = [path.name for path in others if not weight_files.is_model_folder(path) and _holds_checkpoints(path)]
        more += tuple(f"{run} beside the checkpoints holds a run of its own and is left out" for run in beside)
        return DiscoveredStages(name, (Stage(stage, checkpoints),), (*notes, *more))
    if weight_files.is_model_folder(folder):
        weight_files.check_model_folder(folder, allow_pickle=allow_pickle)
        return DiscoveredStages(name, (Stage(stage, (_trainer_checkpoint(folder, stage, None),)),))
    runs = [p for p in subs if _holds_checkpoints(p)]
    models = [p for p in subs if p not in runs and weight_files.has_config(p)]
    if runs or project.is_lineage([path.name for path in models]):
        return _stages_of_project(folder, [*runs, *models], allow_pickle)
    if not models:
        raise BadInput(_nothing_in(folder, subs))
    labels, notes = folder_names.steps_of_folders(models)
    numbered = [
        replace(_trainer_checkpoint(path, label.stage or stage, label.step), tokens=label.tokens)
        if label.tokens is not None
        else _trainer_checkpoint(path, label.stage or stage, label.step)
        for path, label in labels.items()
        if label.step is not None or len(labels) == 1
    ]
    words = [path for path, label in labels.items() if label.step is None and len(labels) > 1]
    checkpoints, more = _words_last(words, numbered, stage, allow_pickle)
    return DiscoveredStages(name, _tree(list(checkpoints), labels.values(), stage), (*notes, *more))


def checkpoint_folders(folder: Path, stage: str) -> list[Checkpoint]:
    """The checkpoint-N folders of a trainer that are there now, complete or not, by step; none without the folder."""
    try:
        return _trainer_checkpoints(_subfolders(folder), stage)
    except FileNotFoundError:
        return []


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "tmp-"))), key=_natural_order
    )


def _trainer_steps(subs: Iterable[Path]) -> dict[int, Path]:
    steps: dict[int, Path] = {}
    for path in subs:
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if match and (other := steps.setdefault(int(match[1]), path)) is not path:
            raise BadInput(
                f"checkpoints of {path.parent} must have different steps, but {other.name} and {path.name} have the same: remove one."
            )
    return steps


def _trainer_checkpoints(subs: Iterable[Path], stage: str) -> list[Checkpoint]:
    return [_trainer_checkpoint(path, stage, step) for step, path in sorted(_trainer_steps(subs).items())]


def _holds_checkpoints(folder: Path) -> bool:
    """Whether a folder holds checkpoints of one run, in whatever way they are named."""
    subs = _subfolders(folder)
    if _trainer_steps(subs):
        return True
    return not weight_files.is_model_folder(folder) and any(weight_files.has_config(path) for path in subs)


def _stages_of_project(folder: Path, runs: Sequence[Path], allow_pickle: bool) -> DiscoveredStages:
    """A stage for each folder, in the order that their names tell."""
    places = project.order_stages(folder, [path.name for path in runs])
    stages, notes = list[Stage](), list[str]()
    for place in places:
        found = stages_from_folder(folder / place.name, place.name, allow_pickle=allow_pickle)
        if len(found.stages) > 1:
            raise project.unclear_order(folder, [path.name for path in runs])
        checkpoints = tuple(
            c if place.train_seed is None else replace(c, train_seed=place.train_seed)
            for c in found.stages[0].checkpoints
        )
        stages.append(Stage(place.name, checkpoints, place.parent))
        notes += [f"{place.name}: {note}" for note in found.notes]
    return DiscoveredStages(folder.resolve().name, parents_first(stages), tuple(notes))


_UNTRAINED_WORDS = re.compile(
    r"(?:^|[-_.])(init|initial|initiali[sz]ed|untrained|random|scratch)(?=$|[-_.])", re.IGNORECASE
)


def _words_last(
    folders: Sequence[Path], numbered: Sequence[Checkpoint], stage: str, allow_pickle: bool
) -> tuple[tuple[Checkpoint, ...], tuple[str, ...]]:
    """Place models without a number in their name (`final`, `best`, …) last, without those that repeat a numbered one."""
    checkpoints, notes = list(numbered), list[str]()
    last = max((c.step or 0 for c in numbered), default=0)
    for folder in folders:
        label = suites.parse_branch(folder.name)
        if label and label.step is not None and label.step not in {c.step for c in checkpoints}:
            # `Checkpoint-200` or `step300` beside `checkpoint-100`: its name holds its step.
            checkpoint = _trainer_checkpoint(folder, stage, label.step)
        else:
            checkpoint = _trainer_checkpoint(folder, stage, None)
            if checkpoint.step is not None and checkpoint.step <= last:
                checkpoint = replace(checkpoint, step=None)
        if (same := _same_weights(checkpoint, numbered, allow_pickle)) is not None:
            notes.append(f"{folder.name} holds the weights of {same.name} and is left out")
            continue
        if checkpoint.step is None and _UNTRAINED_WORDS.search(folder.name):
            raise BadInput(
                f"{folder} looks like the model before training, and a name without a step would be the last checkpoint: rename it to "
                f"{'checkpoint-0' if folder.parent.joinpath(f'checkpoint-{last}').is_dir() else 'step0'}, or write a lineage.toml."
            )
        checkpoints.append(checkpoint)
        if checkpoint.step is None:
            notes.append(f"{folder.name} has no step and is placed after the last one")
    return sort_by_step(checkpoints), tuple(notes)


def _natural_order(path: Path) -> list[tuple[int, int, str]]:
    """`step2` before `step10`."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", path.name) if part]


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


def _with_final(
    folder: Path, checkpoints: Sequence[Checkpoint], allow_pickle: bool
) -> tuple[tuple[Checkpoint, ...], tuple[str, ...]]:
    """Add the trainer's final model in the top folder, unless it is one of its checkpoints: the last one, or the best one, which a
    trainer loads at the end with `load_best_model_at_end`."""
    if not weight_files.is_model_folder(folder):
        return tuple(checkpoints), ()
    last = checkpoints[-1]
    final = _trainer_checkpoint(folder, last.stage, None)
    if (same := _same_weights(final, checkpoints, allow_pickle)) is not None:
        note = f"the model in {folder.resolve().name} itself is {same.name}, not a later one, and is left out"
        return tuple(checkpoints), (() if same == last else (note,))
    if final.step is not None and final.step <= (last.step or 0):
        final = replace(final, step=None)
    return (*checkpoints, final), ()


def _same_weights(model: Checkpoint, checkpoints: Sequence[Checkpoint], allow_pickle: bool) -> Checkpoint | None:
    """The latest checkpoint with the weights of this model; a damaged one equals none, and fetching it raises the proper error."""

    def fingerprint(checkpoint: Checkpoint) -> tuple[int, str] | None:
        try:
            size = checkpoint_files(checkpoint, allow_pickle=allow_pickle).bytes
            return size, weight_fingerprint(checkpoint, allow_pickle=allow_pickle)
        except BadInput:
            return None

    own = fingerprint(model) if checkpoints else None
    return next((c for c in reversed(checkpoints) if own is not None and fingerprint(c) == own), None)


def _nothing_in(folder: Path, subs: list[Path]) -> str:
    inside = [path.name for path in folder.iterdir()]
    if not inside:
        return f"{folder} is empty: give a folder with config.json and weights, or with checkpoint-N folders."
    if "config.json" in inside or weight_files.has_weights(inside) or weight_files.other_format(inside):
        try:
            weight_files.check_model_folder(folder, allow_pickle=True)
        except BadInput as error:
            return str(error)
    for place in subs:
        if weight_files.sharded_weights(place) is not None:
            try:
                weight_files.check_model_folder(place, allow_pickle=True)
            except BadInput as error:
                return str(error)
    hint = f" (it holds {', '.join(p.name for p in subs[:3])}{', …' if len(subs) > 3 else ''})" if subs else ""
    return (
        f"{folder} holds no model{hint}: give a folder with config.json and weights, with checkpoint-N folders, or with folders "
        "of models or of stages."
    )
