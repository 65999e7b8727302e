"""Stages of one entry of a lineage file: branches by a pattern or in a given order, or folders inside one revision."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ontogeny import suites
from ontogeny.errors import BadInput
from ontogeny.lineage import hub
from ontogeny.lineage.checkpoint import Checkpoint, Stage, sort_by_step
from ontogeny.lineage.discover import DiscoveredStages, discover_stages
from ontogeny.lineage.manifest import StageEntry
from ontogeny.suites import BranchLabel


def stages_of_entry(entry: StageEntry, *, allow_pickle: bool, offline: bool) -> DiscoveredStages:
    """The stages of an entry, with its notes; the first one has its name.

    Raises:
        BadInput: the source cannot be read, or nothing in it matches.
    """
    if entry.is_filtered:
        checkpoints, notes = _picked(entry, offline=offline)
        found = DiscoveredStages(entry.source, (Stage(entry.name, sort_by_step(checkpoints)),), tuple(notes))
    else:
        found = discover_stages(entry.source, stage=entry.name, allow_pickle=allow_pickle, offline=offline)
        if len(found.stages) == 1:
            found = replace(found, stages=(replace(found.stages[0], name=entry.name),))
    stages = tuple(_marked(stage, entry) for stage in found.stages)
    notes = [f"{entry.name}: {note}" for note in entry.notes]
    notes += [f"{entry.name} is not verified: {entry.unverified}"] if entry.unverified else []
    return replace(found, stages=stages, notes=(*found.notes, *notes))


def _marked(stage: Stage, entry: StageEntry) -> Stage:
    """The stage with seeds, data shares, tokens and places off the path as the entry gives them."""

    def marked(c: Checkpoint) -> Checkpoint:
        tokens = c.tokens
        if tokens is None and entry.tokens_per_step and c.step is not None:
            tokens = float(c.step * entry.tokens_per_step)
        kinds = (kind for pattern, kind in entry.off_nodes.items() if re.fullmatch(pattern, c.name))
        return replace(
            c,
            stage=stage.name,
            tokens=tokens,
            train_seed=c.train_seed if entry.train_seed is None else entry.train_seed,
            off_trajectory=next(kinds, c.off_trajectory),
            data_share=None if entry.data_share is None else float(entry.data_share),
        )

    checkpoints = tuple(marked(checkpoint) for checkpoint in stage.checkpoints)
    return replace(stage, checkpoints=checkpoints, off_trajectory=entry.off_trajectory)


def _picked(entry: StageEntry, *, offline: bool) -> tuple[list[Checkpoint], list[str]]:
    folder = Path(entry.source).expanduser()
    if folder.is_dir():
        return _folders_on_disk(folder, entry), []
    if not hub.looks_like_repository(entry.source):
        raise BadInput(
            f"there is no folder {entry.source}: give a folder, or a repository like EleutherAI/pythia-160m."
        )
    refs = hub.list_refs(entry.source, offline=offline)
    if entry.path:
        return _folders_of_revision(entry, refs.get(entry.revision or "main")), []
    if entry.order:
        return _in_order(entry, refs)
    if entry.revision:
        if entry.revision not in refs:
            raise BadInput(f"{entry.source} has no revision {entry.revision!r}: correct the stage {entry.name}.")
        return [Checkpoint(entry.source, entry.revision, stage=entry.name, commit=refs[entry.revision])], []
    labels = {name: label for name in refs if (label := _label(entry.branches, name)) is not None}
    _refuse_none(entry, list(labels), refs, "branch")
    return [_checkpoint(entry, name, label, refs[name]) for name, label in labels.items()], []


def _in_order(entry: StageEntry, refs: dict[str, str]) -> tuple[list[Checkpoint], list[str]]:
    present = [name for name in entry.order if name in refs]
    _refuse_none(entry, present, refs, "branch")
    tokens = dict(zip(entry.order, entry.order_tokens, strict=False))
    checkpoints = [
        replace(
            _checkpoint(entry, name, BranchLabel(place), refs[name]),
            tokens=tokens[name] * 1e9 if name in tokens else None,
        )
        for place, name in enumerate(entry.order, 1)
        if name in refs
    ]
    notes = [f"steps of {entry.name} are positions in the order of its branches ({', '.join(present)})"]
    if absent := [name for name in entry.order if name not in refs]:
        notes.append(f"{entry.source} has no branch {', '.join(absent)}")
    return checkpoints, notes


def _folders_of_revision(entry: StageEntry, commit: str | None) -> list[Checkpoint]:
    branch = entry.revision or "main"
    folders = hub.list_hub_folders(entry.source, branch, commit)
    labels = {folder: label for folder in folders if (label := _label(entry.path, folder)) is not None}
    _refuse_none(entry, list(labels), folders, "folder")
    return [replace(_checkpoint(entry, branch, label, commit), subfolder=folder) for folder, label in labels.items()]


def _folders_on_disk(top: Path, entry: StageEntry) -> list[Checkpoint]:
    if not entry.path:
        raise BadInput(f"{top} is a folder and has no branches: use path in the stage {entry.name}, or leave them out.")
    inside = {path.parent.relative_to(top).as_posix(): path.parent for path in sorted(top.rglob("config.json"))}
    labels = {name: label for name in inside if (label := _label(entry.path, name)) is not None}
    _refuse_none(entry, list(labels), list(inside), "folder")
    return [
        Checkpoint(
            str(inside[name]), stage=entry.name, step=label.step, tokens=label.tokens, train_seed=label.train_seed
        )
        for name, label in labels.items()
    ]


def _checkpoint(entry: StageEntry, branch: str, label: BranchLabel, commit: str | None) -> Checkpoint:
    return Checkpoint(
        entry.source,
        revision=branch,
        stage=entry.name,
        step=label.step,
        tokens=label.tokens,
        train_seed=label.train_seed,
        commit=commit,
    )


def _label(pattern: str, name: str) -> BranchLabel | None:
    """Step and tokens of a name that matches: by the pattern's groups, else as the names of branches are read."""
    match = re.fullmatch(pattern, name)
    if match is None:
        return None
    groups = match.groupdict()
    if groups.get("step") is None and groups.get("tokens") is None:
        return suites.parse_branch(name.rpartition("/")[2]) or BranchLabel(None)
    tokens = float(groups["tokens"]) * 1e9 if groups.get("tokens") else None
    return BranchLabel(int(groups["step"]) if groups.get("step") else round((tokens or 0) / 1e6), tokens)


def _refuse_none(entry: StageEntry, matched: Sequence[str], present: Iterable[str], what: str) -> None:
    if not matched:
        some = ", ".join(sorted(present)[:5])
        raise BadInput(
            f"no {what} of {entry.source} matches the stage {entry.name} (it has {some or 'none'}): correct its pattern."
        )
