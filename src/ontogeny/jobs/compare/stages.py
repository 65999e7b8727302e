"""The stages of a comparison as models by name: each checkpoint is loaded once, while all of them fit into memory.

An aspect takes any `Mapping[str, Model]` and names stages by its keys; `placed` then turns the names in its rows into the
checkpoints' own coordinates.
"""

import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ontogeny.errors import BadInput
from ontogeny.lineage import Checkpoint, Lineage, Stage, fetch_checkpoint, weight_bytes, weight_fingerprint
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.models.loading import nearest_tokenizer
from ontogeny.models.model import Model, load_model
from ontogeny.models.validation import validate_model
from ontogeny.records import Record, stamp_checkpoint

ModelLoader = Callable[[Checkpoint], Model]


class StageModels(Mapping[str, Model]):
    """The models by the names of their stages, in developmental order, opened when they are asked for.

    What does not fit into `budget` bytes beside the others makes room: the one that was asked for longest ago goes first.
    """

    def __init__(self, checkpoints: Mapping[str, Checkpoint], load: ModelLoader, *, budget: int | None = None) -> None:
        self.checkpoints = dict(checkpoints)
        self.load = load
        self.budget = half_of_system_memory() if budget is None else budget
        self.loads: Counter[str] = Counter()
        """How often each was loaded."""
        self._open: OrderedDict[str, Model] = OrderedDict()

    def __getitem__(self, name: str) -> Model:
        if name not in self._open:
            checkpoint = self.checkpoints[name]
            coming = weight_bytes(checkpoint, allow_pickle=True)
            while self._open and sum(map(_bytes, self._open.values())) + coming > self.budget:
                self._open.popitem(last=False)
            self._open[name] = self.load(checkpoint)
            self.loads[name] += 1
        self._open.move_to_end(name)
        return self._open[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.checkpoints)

    def __len__(self) -> int:
        return len(self.checkpoints)

    def __contains__(self, name: object) -> bool:
        return name in self.checkpoints  # Mapping's own would load the model


def model_loader(
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    tokenizer: Path | None = None,
    allow_pickle: bool = False,
) -> ModelLoader:
    """How a checkpoint becomes a model whose standard names were checked."""

    def load(checkpoint: Checkpoint) -> Model:
        folder = fetch_checkpoint(checkpoint, allow_pickle=allow_pickle)
        cut_by = tokenizer or nearest_tokenizer(folder)
        model = load_model(folder, device=device, dtype=dtype, tokenizer=cut_by, allow_pickle=allow_pickle)
        validate_model(model, answers=True)
        return model

    return load


def select_stages(lineage: Lineage, text: str) -> dict[str, Checkpoint]:
    """Checkpoints by name from `pretrain:last,sft:*,dpo:last`: a stage and a selector of its steps (`last` unless told).

    A stage with one checkpoint goes by its own name, else by `sft:100`.

    Raises:
        BadInput: no such stage or step, or one is named twice.
    """
    picked: dict[str, list[Checkpoint]] = {}
    for term in (term.strip() for term in text.split(",") if term.strip()):
        name, _, selector = term.partition(":")
        stage = lineage.stage(name.strip())
        selector = {"*": "all", "": "last"}.get(selector.strip(), selector.strip())
        part = lineage.select(f"{stage.name}={selector}").stage(stage.name).checkpoints
        held = picked.setdefault(stage.name, [])
        if again := [c for c in part if c in held]:
            raise BadInput(f"--stages names {again[0].name} of {stage.name} twice. Name each checkpoint once.")
        held += part
    ordered = [(s.name, [c for c in s.checkpoints if c in picked.get(s.name, [])]) for s in lineage.stages]
    return {
        name if len(part) == 1 else f"{name}:{c.name if c.step is None else c.step}": c
        for name, part in ordered
        for c in part
    }


def lineage_from_names(pairs: Sequence[str], *, allow_pickle: bool = False) -> tuple[Lineage, dict[str, Checkpoint]]:
    """A lineage of one checkpoint a stage from `base=REPO_OR_FOLDER post=REPO_OR_FOLDER`; of several checkpoints the last.

    All stages but the first are taken for branches of it.

    Raises:
        BadInput: one is not NAME=SOURCE, two have one name, or a source holds no model.
    """
    found: dict[str, Checkpoint] = {}
    for pair in pairs:
        name, _, source = (part.strip() for part in pair.partition("="))
        if not name or not source:
            raise BadInput(f"{pair!r} is no stage. Write NAME=REPO_OR_FOLDER, such as base=EleutherAI/pythia-160m.")
        if name in found:
            raise BadInput(f"two stages are called {name!r}. Give each its own name.")
        last = Lineage.open(source, allow_pickle=allow_pickle, stage=name).checkpoints[-1]
        found[name] = replace(last, stage=name)
    first = next(iter(found), None)
    stages = tuple(Stage(name, (c,), None if name == first else first) for name, c in found.items())
    return Lineage(" and ".join(found), stages), found


def weight_identities(checkpoints: Mapping[str, Checkpoint], *, allow_pickle: bool = False) -> dict[str, str]:
    """The identity of each one's weights.

    Raises:
        BadInput: fewer than two, or two whose weights are the same.
    """
    if len(checkpoints) < 2:
        one = next(iter(checkpoints), "none")
        raise BadInput(f"a comparison takes two stages or more; given: {one}. Name another one.")
    prints: dict[str, str] = {}
    for name, checkpoint in checkpoints.items():
        mine = weight_fingerprint(checkpoint, allow_pickle=allow_pickle)
        if same := [other for other, known in prints.items() if known == mine]:
            raise BadInput(f"{same[0]} and {name} are the same weights: comparing them says nothing. Leave one out.")
        prints[name] = mine
    return prints


def drop_duplicate_checkpoints(
    checkpoints: Mapping[str, Checkpoint], *, allow_pickle: bool = False
) -> tuple[dict[str, Checkpoint], list[str]]:
    """Those whose weights no earlier one has, and what was left out: a stage often begins with its parent's last weights."""
    seen: dict[str, str] = {}
    kept, notes = {}, []
    for name, checkpoint in checkpoints.items():
        mine = weight_fingerprint(checkpoint, allow_pickle=allow_pickle)
        if mine in seen:
            notes.append(f"{name} has the weights of {seen[mine]} and is left out")
        else:
            seen[mine], kept[name] = name, checkpoint
    return kept, notes


def stamp_rows(records: Iterable[Record], checkpoints: Mapping[str, Checkpoint]) -> Iterator[Record]:
    """Rows whose `stage` (and `other_stage` among the coords) is a name, with the coordinates of the checkpoint it stands for."""
    for record in records:
        coords = dict(record.coords)
        if (other := checkpoints.get(coords.get("other_stage", ""))) is not None:
            coords |= {"other_stage": other.stage, "other_step": f"{other.step}"}
        mine = checkpoints.get(record.stage or "")
        if mine is None:
            yield replace(record, coords=coords)
            continue
        yield from stamp_checkpoint([replace(record, coords=coords)], CheckpointStamp.of("", "", mine))


def half_of_system_memory() -> int:
    """Bytes: half of what this machine has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError, AttributeError):  # a system that does not say
        return 4 * 2**30


def _bytes(model: Model) -> int:
    return sum(p.numel() * p.element_size() for p in model.network.parameters())
