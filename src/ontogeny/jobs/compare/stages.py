"""Stages of a comparison as models by name, each loaded once if all of them fit into memory.

A study takes any `Mapping[str, Model]` and names stages by its keys; `stamp_rows` turns these names into checkpoint coordinates.
"""

import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from ontogeny.errors import BadInput
from ontogeny.lineage import Checkpoint, Lineage, Stage, weight_bytes, weight_fingerprint
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.models.loading import ModelOptions
from ontogeny.models.model import Model, open_model
from ontogeny.models.validation import validate_model
from ontogeny.records import Record, stamp_checkpoint


class StageModels(Mapping[str, Model]):
    """Models by name of their stage, in developmental order, loaded on first access.

    The least recently used models are dropped when the next one would exceed `budget` bytes.
    """

    def __init__(
        self, checkpoints: Mapping[str, Checkpoint], options: ModelOptions | None = None, *, budget: int | None = None
    ) -> None:
        self.checkpoints = dict(checkpoints)
        self.options = options or ModelOptions()
        self.on_access: Callable[[str], None] = lambda _: None
        """Called with the name of each model that is read."""
        self.budget = half_of_system_memory() if budget is None else budget
        self.loads: Counter[str] = Counter()
        """Number of loads by name."""
        self._open: OrderedDict[str, Model] = OrderedDict()

    def __getitem__(self, name: str) -> Model:
        self.on_access(name)
        if name not in self._open:
            checkpoint = self.checkpoints[name]
            size = weight_bytes(checkpoint, allow_pickle=True)
            while self._open and sum(map(_bytes, self._open.values())) + size > self.budget:
                self._open.popitem(last=False)
            self._open[name] = open_model(checkpoint, self.options)
            validate_model(self._open[name], answers=True)
            self.loads[name] += 1
        self._open.move_to_end(name)
        return self._open[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.checkpoints)

    def __len__(self) -> int:
        return len(self.checkpoints)

    def __contains__(self, name: object) -> bool:
        return name in self.checkpoints  # the default of Mapping would load the model


def select_stages(lineage: Lineage, text: str) -> dict[str, Checkpoint]:
    """Checkpoints by name from `pretrain:last,sft:*,dpo`: stages, each with a selector of its steps (default `last`).

    A single checkpoint of a stage has the stage's name, several have names such as `sft:100`.

    Raises:
        BadInput: an unknown stage or step, or a checkpoint that is named twice.
    """
    selected: dict[str, list[Checkpoint]] = {}
    for term in (term.strip() for term in text.split(",") if term.strip()):
        name, _, selector = term.partition(":")
        stage = lineage.stage(name.strip())
        selector = {"*": "all", "": "last"}.get(selector.strip(), selector.strip())
        part = lineage.select(f"{stage.name}={selector}").stage(stage.name).checkpoints
        earlier = selected.setdefault(stage.name, [])
        if again := [c for c in part if c in earlier]:
            raise BadInput(f"`stages` must name each checkpoint once, got {again[0].name} of {stage.name} twice.")
        earlier += part
    ordered = [(s.name, [c for c in s.checkpoints if c in selected.get(s.name, [])]) for s in lineage.stages]
    return {
        name if len(part) == 1 else f"{name}:{c.name if c.step is None else c.step}": c
        for name, part in ordered
        for c in part
    }


def lineage_from_names(pairs: Sequence[str], *, allow_pickle: bool = False) -> tuple[Lineage, dict[str, Checkpoint]]:
    """A lineage of the last checkpoints of several sources, from `base=REPO_OR_FOLDER post=REPO_OR_FOLDER`.

    The first stage is the parent of all others.

    Raises:
        BadInput: a pair that is not NAME=SOURCE, a repeated name, or a source without a model.
    """
    checkpoints: dict[str, Checkpoint] = {}
    for pair in pairs:
        name, _, source = (part.strip() for part in pair.partition("="))
        if not name or not source:
            raise BadInput(f"a stage must be NAME=REPO_OR_FOLDER, such as base=EleutherAI/pythia-160m, got {pair!r}.")
        if name in checkpoints:
            raise BadInput(f"two stages are called {name!r}: give each its own name.")
        last = Lineage.open(source, allow_pickle=allow_pickle, stage=name).checkpoints[-1]
        checkpoints[name] = replace(last, stage=name)
    first = next(iter(checkpoints), None)
    stages = tuple(Stage(name, (c,), None if name == first else first) for name, c in checkpoints.items())
    return Lineage(" and ".join(checkpoints), stages), checkpoints


def weight_identities(checkpoints: Mapping[str, Checkpoint], *, allow_pickle: bool = False) -> dict[str, str]:
    """Fingerprint of each checkpoint's weights.

    Raises:
        BadInput: fewer than two checkpoints, or two with the same weights.
    """
    if len(checkpoints) < 2:
        raise BadInput(
            f"a comparison needs two stages or more, got {next(iter(checkpoints), 'none')}: name another one."
        )
    names: dict[str, str] = {}
    for name, checkpoint in checkpoints.items():
        other = names.setdefault(weight_fingerprint(checkpoint, allow_pickle=allow_pickle), name)
        if other != name:
            raise BadInput(f"{other} and {name} have the same weights: leave one out.")
    return {name: fingerprint for fingerprint, name in names.items()}


def drop_duplicate_checkpoints(
    checkpoints: Mapping[str, Checkpoint], *, allow_pickle: bool = False
) -> tuple[dict[str, Checkpoint], list[str]]:
    """Checkpoints with distinct weights, and notes on the dropped ones: a stage often begins with its parent's last weights."""
    names: dict[str, str] = {}
    distinct, notes = {}, []
    for name, checkpoint in checkpoints.items():
        other = names.setdefault(weight_fingerprint(checkpoint, allow_pickle=allow_pickle), name)
        if other == name:
            distinct[name] = checkpoint
        else:
            notes.append(f"{name} has the weights of {other} and is left out")
    return distinct, notes


def stamp_rows(records: Iterable[Record], checkpoints: Mapping[str, Checkpoint]) -> Iterator[Record]:
    """Replace the names in `stage`, and in `other_stage` of the coords, by the checkpoints' coordinates."""
    for record in records:
        coords = dict(record.coords)
        if (other := checkpoints.get(coords.get("other_stage", ""))) is not None:
            coords |= {"other_stage": other.stage, "other_step": f"{other.step}"}
        record, own = replace(record, coords=coords), checkpoints.get(record.stage or "")
        yield from [record] if own is None else stamp_checkpoint([record], CheckpointStamp.of("", "", own))


def half_of_system_memory() -> int:
    """Half of the machine's memory, in bytes."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError, AttributeError):  # not available on this system
        return 4 * 2**30


def _bytes(model: Model) -> int:
    return sum(p.numel() * p.element_size() for p in model.network.parameters())
