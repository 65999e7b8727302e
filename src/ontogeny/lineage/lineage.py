"""Lineage: a training run as a tree of stages; sibling stages and seeds are branches."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from ontogeny.errors import BadInput, unknown_name
from ontogeny.lineage import manifest, selectors
from ontogeny.lineage.checkpoint import Checkpoint, Stage
from ontogeny.lineage.discover import DiscoveredStages, discover_stages, parents_first
from ontogeny.lineage.entry_stages import stages_of_entry
from ontogeny.lineage.siblings import check_sibling_places, check_siblings
from ontogeny.notebook import rich_html


@dataclass(frozen=True)
class Lineage:
    """A training run: opened from a source, extended by `with_stage`, reduced by `select`."""

    name: str
    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()
    """Remarks about how the source was read, for readers of the results."""
    unselected: tuple[tuple[str, str | None], ...] = ()
    """Name and parent of all stages before a selection; () if nothing was selected."""

    @classmethod
    def open(
        cls, source: str | Path, *, allow_pickle: bool = False, stage: str = "pretrain", offline: bool = False
    ) -> Self:
        """Open a repository, a folder, a `lineage.toml` or a public run by its name; a path on disk takes precedence.

        Args:
            allow_pickle: Whether to accept weights in `pytorch_model.bin` or `.distcp` shards, which can run code.
            stage: Name of the first stage.
            offline: Whether to use the local cache only.

        Raises:
            BadInput: the source does not exist, holds no checkpoint, or cannot be read.
        """
        path = Path(source).expanduser()
        file = path / manifest.LINEAGE_FILE if path.is_dir() else path
        if file.is_file() and file.suffix == ".toml":
            return cls._from_manifest(file, allow_pickle, offline)
        packaged = manifest.packaged_manifests().get(str(source))
        if packaged is not None and not path.exists():
            return cls._from_manifest(packaged, allow_pickle, offline)
        if path.suffix == ".toml" and not path.exists():
            raise BadInput(f"there is no file {source}: give a lineage.toml, a folder, or a repository.")
        found = discover_stages(str(source), stage=stage, allow_pickle=allow_pickle, offline=offline)
        return cls(found.name, found.stages, found.notes)

    @classmethod
    def _from_manifest(cls, file: Path, allow_pickle: bool, offline: bool) -> Self:
        loaded = manifest.load_manifest(file)
        lineage = cls(loaded.name, (), loaded.notes)
        for line in loaded.stages:
            found = stages_of_entry(line, allow_pickle=allow_pickle, offline=offline)
            part = cls(line.source, found.stages, found.notes).select(line.steps)
            lineage = lineage._add_stages(
                line.name, DiscoveredStages(loaded.name, part.stages, part.notes), line.parent
            )
        check_siblings(lineage.stages, lineage.name)
        return lineage

    def with_stage(
        self,
        stage: str,
        source: str | Path,
        *,
        parent: str | None = None,
        allow_pickle: bool = False,
        data_share: float | None = None,
        train_seed: int | None = None,
    ) -> Self:
        """This lineage with one more stage.

        Args:
            parent: The stage that it continues; by default the last one, "" for an independent run such as another seed.
            data_share: Share of the data that this stage and its siblings differ in, from 0 to 1.
            train_seed: Training seed; by default the one that the source names.

        Raises:
            BadInput: the stage exists already, its parent does not, the source cannot be read, or another sibling has the same share.
        """
        self._check_place(stage, parent)
        found = discover_stages(str(source), stage=stage, allow_pickle=allow_pickle, offline=False)
        stages = tuple(_with_share(one, data_share, train_seed) for one in found.stages)
        lineage = self._add_stages(stage, replace(found, stages=stages), parent)
        check_sibling_places(lineage.stages, lineage.name)
        return lineage

    def _check_place(self, stage: str, parent: str | None) -> None:
        names = [s.name for s in self.stages]
        if not stage or stage in names:
            raise BadInput(f"the lineage {self.name} has a stage {stage!r} already: give the new stage another name.")
        if parent and parent not in names:
            raise unknown_name("stage", parent, names)

    def _add_stages(self, stage: str, found: DiscoveredStages, parent: str | None) -> Self:
        self._check_place(stage, parent)
        up = self.stages[-1].name if parent is None and self.stages else parent or None
        # Further stages of the source are prefixed with the name of this stage.
        names = {s.name: s.name if s.name == stage else f"{stage}/{s.name}" for s in found.stages}
        added = tuple(
            Stage(
                names[s.name],
                tuple(replace(c, stage=names[s.name]) for c in s.checkpoints),
                up if s.parent is None else names[s.parent],
                s.off_trajectory,
            )
            for s in found.stages
        )
        stages, notes = parents_first((*self.stages, *added)), (*self.notes, *found.notes)
        unselected = self.unselected and (*self.unselected, *((s.name, s.parent) for s in added))
        return replace(self, stages=stages, notes=notes, unselected=unselected)

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """All checkpoints: parents before children, by step within a stage."""
        return tuple(checkpoint for stage in self.stages for checkpoint in stage.checkpoints)

    def _repr_html_(self) -> str:
        return rich_html("lineage", self)

    def stage(self, name: str) -> Stage:
        """One stage by its name.

        Raises:
            BadInput: the stage does not exist.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise unknown_name("stage", name, [s.name for s in self.stages])

    @property
    def parents(self) -> dict[str, str | None]:
        """Parent of each stage of the whole run, parents first, including stages that a selection left out."""
        return dict(self.unselected) or {stage.name: stage.parent for stage in self.stages}

    def split_target(self, text: str) -> tuple[Stage, str]:
        """The stage and the selector of a target: `dpo:last`, `dpo`, or `last` and `100` of the last stage.

        Raises:
            BadInput: the stage does not exist.
        """
        name, _, steps = text.rpartition(":")
        names = [stage.name for stage in self.stages]
        if not name:
            name, steps = (steps, "last") if steps in names else (names[-1], steps)
        return self.stage(name), steps

    def ancestry(self, name: str) -> tuple[Stage, ...]:
        """The path of stages from the root to a stage."""
        stage = self.stage(name)
        return (*(self.ancestry(stage.parent) if stage.parent else ()), stage)

    def select(self, steps: str) -> Self:
        """The lineage with some of the checkpoints, by a selector (`log`, `last`, `0,1000`, `1000-5000`, `every:10`, …).

        The selector applies to each stage; every listed step must exist in at least one. `pretrain=log;sft=all` selects by stage; a stage
        that is not named is left out. Stages without steps stay whole if steps are listed; empty stages are removed.

        Raises:
            BadInput: the selector is invalid, or a step is in no stage.
        """
        if "=" in steps:
            return self._by_stage(steps)
        picked = {stage.name: selectors.select_checkpoints(stage.checkpoints, steps) for stage in self.stages}
        # A term is an error if it matches no stage.
        for term in dict.fromkeys(term for _, unmet in picked.values() for term in unmet):
            if all(term in unmet for _, unmet in picked.values()):
                raise selectors.no_such_step(term, self._most_informative().checkpoints, self._where())
        kept = {}
        for stage in self.stages:
            chosen, _ = picked[stage.name]
            unnumbered = all(c.step is None for c in stage.checkpoints)
            kept[stage.name] = tuple(c for c in stage.checkpoints if c in chosen or (unnumbered and not chosen))
        return self._with_checkpoints(kept)

    def _by_stage(self, steps: str) -> Self:
        kept: dict[str, tuple[Checkpoint, ...]] = {stage.name: () for stage in self.stages}
        for part in filter(None, (part.strip() for part in steps.split(";"))):
            name, equals, text = part.partition("=")
            if not equals:
                raise BadInput(f"{part!r} names no stage: write it as STAGE={part}, beside the others in {steps!r}.")
            stage = self.stage(name.strip())
            chosen, unmet = selectors.select_checkpoints(stage.checkpoints, text)
            if unmet:
                raise selectors.no_such_step(unmet[0], stage.checkpoints, f"the stage {stage.name} of {self.name}")
            kept[stage.name] = tuple(c for c in stage.checkpoints if c in chosen or c in kept[stage.name])
        return self._with_checkpoints(kept)

    def _with_checkpoints(self, kept: dict[str, tuple[Checkpoint, ...]]) -> Self:
        """Keep these checkpoints; children of a removed stage move to its nearest remaining ancestor."""
        stages = []
        for stage in self.stages:
            if kept[stage.name]:
                up = next((s.name for s in reversed(self.ancestry(stage.name)[:-1]) if kept[s.name]), None)
                stages.append(replace(stage, checkpoints=kept[stage.name], parent=up))
        return replace(self, stages=tuple(stages), unselected=tuple(self.parents.items()))

    def _most_informative(self) -> Stage:
        return max(self.stages, key=lambda stage: sum(c.step is not None for c in stage.checkpoints))

    def _where(self) -> str:
        return self.name if len(self.stages) == 1 else f"{self.name} (stage {self._most_informative().name})"


def _with_share(stage: Stage, data_share: float | None, train_seed: int | None) -> Stage:
    checkpoints = tuple(
        replace(c, data_share=data_share, train_seed=c.train_seed if train_seed is None else train_seed)
        for c in stage.checkpoints
    )
    return replace(stage, checkpoints=checkpoints)
