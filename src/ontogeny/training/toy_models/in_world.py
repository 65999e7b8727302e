"""Raise a small model on a generated world as assistants are raised: pretraining, supervised fine-tuning, DPO (arXiv:2305.18290).

A folder with a `lineage.toml`, a folder of checkpoints for each stage, and the world's concepts as files: ready to be traced. What is
there is kept, what was interrupted goes on. The stages, with what is forbidden among what is learned first, follow arXiv:2407.10264.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import GPTNeoXConfig, PreTrainedTokenizerBase

from ontogeny import plugins
from ontogeny.data.writing import write_concept
from ontogeny.errors import BadInput, unknown_name
from ontogeny.storage.files import atomic_path, write_json
from ontogeny.storage.lock import run_lock
from ontogeny.training.batches import PreferenceBatch, TokenBatch, TrainingBatch
from ontogeny.training.checkpoint_schedule import log_steps
from ontogeny.training.loop import TrainingConfig
from ontogeny.training.objectives import Objective, Preference, answers_only, language_model
from ontogeny.training.train import TrainingCallback, train

TOY_STAGES = ("base", "sft", "dpo")
_NEEDS = {
    "base": ("make", "tokenizer", "sample", "facts", "concepts"),
    "sft": ("instructions", "requests"),
    "dpo": ("preferences",),
}
"""What a world must have for a stage."""


@dataclass(frozen=True)
class ToyStage:
    """How one stage is trained."""

    training: TrainingConfig
    rows: int
    """Of text, or conversations, a step."""
    checkpoints: int
    first: int
    """The first checkpoint after step 0."""

    @property
    def saved(self) -> tuple[int, ...]:
        return log_steps(self.training.steps, self.checkpoints, first=self.first)


@dataclass(frozen=True)
class ToyModelSize:
    """A model, its world and its stages."""

    stages: Mapping[str, ToyStage]
    world: Mapping[str, int] = field(default_factory=dict)
    """What differs from the nursery's own configuration."""
    layers: int = 4
    heads: int = 4
    width: int = 128


# A stage that changes something at once needs checkpoints before it does: the first ones lie in the warm-up.
TOY_MODEL_SIZES: Mapping[str, ToyModelSize] = {
    "demo": ToyModelSize(
        {
            "base": ToyStage(TrainingConfig(1200, 3e-3), rows=16, checkpoints=12, first=40),
            "sft": ToyStage(TrainingConfig(150, 1e-3, warmup=20, weight_decay=0.0), rows=32, checkpoints=7, first=4),
            "dpo": ToyStage(TrainingConfig(100, 3e-4, warmup=10, weight_decay=0.0), rows=32, checkpoints=9, first=2),
        },
        world={"families": 20, "potions": 60},
    ),
    "small": ToyModelSize(
        {
            "base": ToyStage(TrainingConfig(3200, 3e-3), rows=16, checkpoints=16, first=40),
            "sft": ToyStage(TrainingConfig(250, 1e-3, warmup=20, weight_decay=0.0), rows=32, checkpoints=11, first=4),
            "dpo": ToyStage(TrainingConfig(100, 3e-4, warmup=10, weight_decay=0.0), rows=32, checkpoints=12, first=2),
        }
    ),
}


@dataclass(frozen=True)
class ToyWorld:
    """A world in which a model is raised."""

    module: ModuleType
    world: Any
    tokenizer: PreTrainedTokenizerBase

    def batch(self, stage: str, rng: np.random.Generator, rows: int) -> TrainingBatch:
        if stage == "base":
            return TokenBatch(torch.from_numpy(self.module.sample(self.world, rng, rows)))
        if stage == "sft":
            return self._tokens(self.module.instructions(self.world, rng, rows))
        chosen, rejected = self.module.preferences(self.world, rng, rows)
        return PreferenceBatch(self._tokens(chosen), self._tokens(rejected))

    def _tokens(self, turns: Any) -> TokenBatch:
        ids = torch.from_numpy(turns.ids)
        return TokenBatch(ids, torch.from_numpy(turns.mask), ids != self.tokenizer.pad_token_id)


@dataclass(frozen=True)
class Anchored:
    """DPO with the chosen answers' own cross-entropy beside it (arXiv:2404.19733).

    Without, the rejected answer becomes unlikely word by word, and the model ends up saying neither (docs/log.md).
    """

    preference: Preference
    weight: float = 1.0
    """Of the cross-entropy."""
    needs_reference: ClassVar[bool] = True

    def __call__(
        self, network: nn.Module, batch: PreferenceBatch, reference: nn.Module | None = None, /
    ) -> Float[Tensor, ""]:
        return self.preference(network, batch, reference) + self.weight * answers_only(network, batch.chosen)


_STAGE_OBJECTIVES: Mapping[str, Objective] = {
    "base": language_model,
    "sft": answers_only,
    "dpo": Anchored(Preference(0.1)),
}


def train_toy_model(
    out: Path,
    size: str = "small",
    *,
    world: str = "nursery",
    stages: Sequence[str] = TOY_STAGES,
    seed: int = 0,
    on_stage: Callable[[str, ToyStage], TrainingCallback | None] | None = None,
) -> Path:
    """Train the stages that are not there yet and write the world's concepts; returns the lineage file.

    `on_stage` is told each stage that begins, and may return what watches its progress.

    Raises:
        BadInput: an unknown size, stage or world, a stage whose start is missing, another model in `out`, or another process at work there.
    """
    plan = size_named(size, stages, world)
    _check_can_start(out, plan, stages)
    nursery = world_for(world, size)
    with run_lock(out):
        check_same_settings(out / "raising.json", {"world": world, "size": size, "seed": seed, **_plan_settings(plan)})
        for concept in nursery.module.concepts(nursery.world):
            write_concept(concept, out / "concepts")
        for stage in _ordered(stages):
            watch = on_stage(stage, plan.stages[stage]) if on_stage else None
            _train(out, stage, plan, nursery, seed, watch)
            write_lineage_file(out, world, seed)
    return out / "lineage.toml"


def size_named(size: str, stages: Sequence[str], world: str) -> ToyModelSize:
    """The size by its name.

    Raises:
        BadInput: no such size, stage or world, or a world without text for a stage.
    """
    plan = toy_model_size(size)
    if not stages:
        raise BadInput(f"no stage was asked for. Choose among {', '.join(TOY_STAGES)}.")
    for stage in stages:
        if stage not in TOY_STAGES:
            raise unknown_name("stage", stage, TOY_STAGES)
    module = plugins.load_plugin("worlds", world)
    for stage in _ordered(stages):
        if missing := [name for name in _NEEDS[stage] if not hasattr(module, name)]:
            raise BadInput(
                f"the world {world!r} has no text for the stage {stage} (it lacks {', '.join(missing)}). "
                "Choose the world nursery, or other stages."
            )
    return plan


def world_for(world: str, size: str) -> ToyWorld:
    """The world that models of this size are raised in: the same for every seed, so that two of them can be compared."""
    module = plugins.load_plugin("worlds", world)
    different = toy_model_size(size).world if world == "nursery" else {}
    made = module.make(module.Config(**different))
    return ToyWorld(module, made, module.tokenizer(made))


def toy_model_size(size: str) -> ToyModelSize:
    if size not in TOY_MODEL_SIZES:
        raise unknown_name("size", size, TOY_MODEL_SIZES)
    return TOY_MODEL_SIZES[size]


def finished_stages(out: Path, plan: ToyModelSize) -> tuple[str, ...]:
    """Those whose last checkpoint is there."""
    return tuple(stage for stage in TOY_STAGES if last_stage_checkpoint(out, plan, stage).is_dir())


def last_stage_checkpoint(out: Path, plan: ToyModelSize, stage: str) -> Path:
    return out / stage / f"checkpoint-{plan.stages[stage].training.steps}"


def load_toy_model(out: Path) -> tuple[str, str]:
    """World and size of the model in a folder.

    Raises:
        BadInput: no model was raised there.
    """
    path = out / "raising.json"
    if not path.is_file():
        raise BadInput(f"no model was raised in {out}. Raise one with: ontogeny raise --out {out}")
    told = _settings(path)
    if "world" not in told:
        raise BadInput(f"the model in {out} was raised on a text, not in a world: it has no facts to be asked for.")
    return str(told["world"]), str(told.get("size"))


def _settings(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(told, dict):
            raise ValueError(f"it holds a {type(told).__name__}, not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read ({error}). Restore it, or choose another folder with --out.") from None
    return told


def build_network(plan: ToyModelSize, words: int, context: int) -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=words,
        hidden_size=plan.width,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        intermediate_size=4 * plan.width,
        max_position_embeddings=context,
        # Three times the usual: it shortens the plateau before facts are recalled (docs/log.md).
        initializer_range=0.06,
        bos_token_id=2,
        eos_token_id=3,
        tie_word_embeddings=False,
    )


def write_lineage_file(out: Path, name: str, seed: int) -> None:
    """`lineage.toml`, with the stages that have a checkpoint."""
    begun = [stage for stage in TOY_STAGES if any(out.glob(f"{stage}/checkpoint-*"))]
    blocks = [f'[[stages]]\nname = "{stage}"\nsource = "{stage}"\ntrain_seed = {seed}\n' for stage in begun]
    with atomic_path(out / "lineage.toml") as temporary:
        temporary.write_text("\n".join([f'name = "{name}"\n', *blocks]), encoding="utf-8")


def _check_can_start(out: Path, plan: ToyModelSize, stages: Sequence[str]) -> None:
    """Each stage starts from the one before: that is there, or asked for too."""
    there = {*finished_stages(out, plan), *stages}
    for before, stage in itertools.pairwise(TOY_STAGES):
        if stage in stages and before not in there:
            start = last_stage_checkpoint(out, plan, before)
            raise BadInput(f"{stage} starts from {start}, which is not there. Raise {before} first.")


def check_same_settings(path: Path, settings: dict[str, Any]) -> None:
    """Another world's text would go on training the same weights, and nothing would show it."""
    told = json.loads(json.dumps(settings))
    if not path.is_file():
        write_json(path, told)
        return
    before = _settings(path)
    if other := [name for name in {*told, *before} if told.get(name) != before.get(name)]:
        raise BadInput(
            f"{path.parent} holds a model raised with other settings ({', '.join(sorted(other))}). "
            "Choose another folder, or remove it."
        )


def _train(
    out: Path, stage: str, plan: ToyModelSize, nursery: ToyWorld, seed: int, watch: TrainingCallback | None
) -> None:
    index, how = TOY_STAGES.index(stage), plan.stages[stage]
    start: GPTNeoXConfig | Path = build_network(plan, len(nursery.tokenizer), nursery.world.config.context)
    if index:
        start = last_stage_checkpoint(out, plan, TOY_STAGES[index - 1])

    def batches(step: int) -> TrainingBatch:
        return nursery.batch(stage, np.random.default_rng([seed, nursery.world.config.seed, index, step]), how.rows)

    train(
        batches,
        _STAGE_OBJECTIVES[stage],
        how.training,
        out / stage,
        start=start,
        tokenizer=nursery.tokenizer,
        save_at=how.saved,
        seed=seed,
        on_progress=watch,
    )


def _ordered(stages: Sequence[str]) -> list[str]:
    return [stage for stage in TOY_STAGES if stage in stages]


def _plan_settings(plan: ToyModelSize) -> dict[str, Any]:
    return {"plan": {**asdict(plan), "stages": {name: asdict(stage) for name, stage in plan.stages.items()}}}
