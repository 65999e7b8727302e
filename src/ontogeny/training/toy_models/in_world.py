"""Train a toy model in a generated world in the stages of an assistant: pretraining, supervised fine-tuning, DPO (arXiv:2305.18290).

The result is a folder with a `lineage.toml`, checkpoints of each stage, and the world's concepts as files, ready to be traced. Finished
stages are skipped, an interrupted one resumes. The stages, with forbidden content in pretraining, follow arXiv:2407.10264.
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
from transformers import (
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ontogeny import plugins
from ontogeny.data.writing import write_concept
from ontogeny.errors import BadInput, unknown_name
from ontogeny.storage.files import atomic_path, write_json
from ontogeny.storage.lock import run_lock
from ontogeny.training.batches import PreferenceBatch, TokenBatch, TrainingBatch
from ontogeny.training.checkpoint_schedule import log_steps
from ontogeny.training.loop import TrainingConfig
from ontogeny.training.objectives.dpo import Preference
from ontogeny.training.objectives.language_model import answers_only, language_model
from ontogeny.training.objectives.objective import Objective
from ontogeny.training.train import TrainingCallback, initial_language_model, train

TOY_STAGES = ("base", "sft", "dpo")
_TOY_FAMILIES = ("gpt_neox", "llama", "gpt2")
_NEEDS = {
    "base": ("make", "tokenizer", "sample", "facts", "concepts"),
    "sft": ("instructions", "requests"),
    "dpo": ("preferences",),
}
"""Functions that a world needs for a stage."""


@dataclass(frozen=True)
class ToyStage:
    """Settings of one stage."""

    training: TrainingConfig
    rows: int
    """Rows of text, or conversations, per step."""
    checkpoints: int
    first: int
    """The first checkpoint after step 0."""

    @property
    def saved(self) -> tuple[int, ...]:
        return log_steps(self.training.steps, self.checkpoints, first=self.first)


@dataclass(frozen=True)
class ToyModelSize:
    """Size of a model, settings of its world, and its stages."""

    stages: Mapping[str, ToyStage]
    world: Mapping[str, int] = field(default_factory=dict)
    """Settings of the nursery that differ from its defaults."""
    layers: int = 4
    heads: int = 4
    width: int = 128


# A stage can change the model within few steps, so its first checkpoints are in the warm-up.
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
    """A generated world with its tokenizer, as a source of batches."""

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
    """DPO plus the cross-entropy of the chosen answers (arXiv:2404.19733).

    DPO alone lowers the likelihood of both answers word by word, until the model gives neither (docs/log.md).
    """

    preference: Preference
    weight: float = 1.0
    """Weight of the cross-entropy."""
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
    """Train the unfinished stages and write the world's concepts; returns the lineage file.

    Args:
        size: Name in `TOY_MODEL_SIZES`.
        on_stage: Called at the start of each stage; may return a callback for its progress.

    Raises:
        BadInput: an unknown size, stage or world, a missing previous stage, another model in `out`, or another process that writes there.
    """
    plan = size_named(size, stages, world)
    _check_can_start(out, plan, stages)
    toy_world = world_for(world, size)
    with run_lock(out):
        check_same_settings(out / "raising.json", {"world": world, "size": size, "seed": seed, **_plan_settings(plan)})
        for concept in toy_world.module.concepts(toy_world.world):
            write_concept(concept, out / "concepts")
        if template := getattr(
            toy_world.module, "CHAT_TEMPLATE", ""
        ):  # for chats with the model, such as those of the dashboard
            with atomic_path(out / "chat_template.jinja") as temporary:
                temporary.write_text(f"{template}\n", encoding="utf-8")
        for stage in _ordered(stages):
            _train(out, stage, plan, toy_world, seed, on_stage(stage, plan.stages[stage]) if on_stage else None)
            write_lineage_file(out, world, seed)
    return out / "lineage.toml"


def size_named(size: str, stages: Sequence[str], world: str) -> ToyModelSize:
    """The size of a name, checked for these stages in this world.

    Raises:
        BadInput: no such size, stage or world, or a world without text for a stage.
    """
    plan = toy_model_size(size)
    if not stages:
        raise BadInput(f"`stages` must not be empty: choose among {', '.join(TOY_STAGES)}.")
    for stage in stages:
        if stage not in TOY_STAGES:
            raise unknown_name("stage", stage, TOY_STAGES)
    module = plugins.load_plugin("worlds", world)
    for stage in _ordered(stages):
        if missing := [name for name in _NEEDS[stage] if not hasattr(module, name)]:
            raise BadInput(
                f"the world {world!r} has no text for the stage {stage} (it lacks {', '.join(missing)}): choose the world nursery, or "
                "other stages."
            )
    return plan


def world_for(world: str, size: str) -> ToyWorld:
    """The world for models of this size; equal for every training seed, so that models can be compared."""
    module = plugins.load_plugin("worlds", world)
    settings = toy_model_size(size).world if world == "nursery" else {}
    built = module.make(module.Config(**settings))
    return ToyWorld(module, built, module.tokenizer(built))


def toy_model_size(size: str) -> ToyModelSize:
    if size not in TOY_MODEL_SIZES:
        raise unknown_name("size", size, TOY_MODEL_SIZES)
    return TOY_MODEL_SIZES[size]


def finished_stages(out: Path, plan: ToyModelSize) -> tuple[str, ...]:
    """Stages with their last checkpoint."""
    return tuple(stage for stage in TOY_STAGES if last_stage_checkpoint(out, plan, stage).is_dir())


def last_stage_checkpoint(out: Path, plan: ToyModelSize, stage: str) -> Path:
    return out / stage / f"checkpoint-{plan.stages[stage].training.steps}"


def load_toy_model(out: Path) -> tuple[str, str]:
    """World and size of the model in a folder.

    Raises:
        BadInput: no model was trained there, or one on a text.
    """
    path = out / "raising.json"
    if not path.is_file():
        raise BadInput(f"no model was trained in {out}: train one there first, or set `out`.")
    settings = _settings(path)
    if "world" not in settings:
        raise BadInput(f"the model in {out} was trained on a text, not in a world, so there are no facts to check.")
    return str(settings["world"]), str(settings.get("size"))


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError(f"a {type(settings).__name__}, not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read ({error}): restore it, or choose another folder as `out`.") from None
    return settings


def build_network(plan: ToyModelSize, words: int, context: int, family: str = "gpt_neox") -> PretrainedConfig:
    """Configuration of a decoder of this size.

    Args:
        family: `gpt_neox`, `llama` (RMS norm, gated MLP, rotary positions) or `gpt2` (learned positions).

    Raises:
        BadInput: no such family, or heads that do not divide the width.
    """
    if family not in _TOY_FAMILIES:
        raise unknown_name("family", family, _TOY_FAMILIES)
    if plan.heads < 1 or plan.width < 1 or plan.width % plan.heads:
        raise BadInput(f"`width` must be a multiple of the {plan.heads} heads, got {plan.width}: change one of them.")
    given = {
        "vocab_size": words,
        # Three times the default, which shortens the plateau before facts are recalled (docs/log.md).
        "initializer_range": 0.06,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "tie_word_embeddings": False,
    }
    if family == "gpt2":
        no_dropout = {name: 0.0 for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
        return GPT2Config(
            n_embd=plan.width, n_layer=plan.layers, n_head=plan.heads, n_positions=context, **no_dropout, **given
        )
    sizes = {
        "hidden_size": plan.width,
        "num_hidden_layers": plan.layers,
        "num_attention_heads": plan.heads,
        "max_position_embeddings": context,
    }
    if family == "llama":
        # Three matrices in place of two: 8/3 of the width has as many weights as four times the width.
        return LlamaConfig(intermediate_size=8 * plan.width // 3, **sizes, **given)
    return GPTNeoXConfig(intermediate_size=4 * plan.width, **sizes, **given)


def small_decoder(
    words: int, context: int, *, layers: int, heads: int, width: int, family: str = "gpt_neox"
) -> Callable[[], PreTrainedModel]:
    """A function that builds a decoder of this size with new weights, as `TrainingRecipe` takes it.

    Args:
        family: As that of `build_network`.
    """
    config = build_network(ToyModelSize({}, layers=layers, heads=heads, width=width), words, context, family)
    return lambda: initial_language_model(config)


def write_lineage_file(out: Path, name: str, seed: int) -> None:
    """Write `lineage.toml` with the stages that have a checkpoint."""
    stages = [stage for stage in TOY_STAGES if any(out.glob(f"{stage}/checkpoint-*"))]
    blocks = [f'[[stages]]\nname = "{stage}"\nsource = "{stage}"\ntrain_seed = {seed}\n' for stage in stages]
    with atomic_path(out / "lineage.toml") as temporary:
        temporary.write_text("\n".join([f'name = "{name}"\n', *blocks]), encoding="utf-8")


def _check_can_start(out: Path, plan: ToyModelSize, stages: Sequence[str]) -> None:
    """Each stage needs the previous one, finished or requested."""
    available = {*finished_stages(out, plan), *stages}
    for before, stage in itertools.pairwise(TOY_STAGES):
        if stage in stages and before not in available:
            start = last_stage_checkpoint(out, plan, before)
            raise BadInput(f"the stage {stage} starts from {start}, which is missing: train {before} first.")


def check_same_settings(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings, or compare them with those of the folder, so that no other text continues the training.

    Raises:
        BadInput: the folder has a model with other settings.
    """
    content = json.loads(json.dumps(settings))
    if not path.is_file():
        write_json(path, content)
        return
    before = _settings(path)
    if changed := [name for name in {*content, *before} if content.get(name) != before.get(name)]:
        raise BadInput(
            f"{path.parent} has a model with other settings ({', '.join(sorted(changed))}): choose another folder, or remove it."
        )


def _train(
    out: Path, stage: str, plan: ToyModelSize, toy_world: ToyWorld, seed: int, on_progress: TrainingCallback | None
) -> None:
    index, settings, config = TOY_STAGES.index(stage), plan.stages[stage], toy_world.world.config
    start: PretrainedConfig | Path = build_network(plan, len(toy_world.tokenizer), config.context)
    if index:
        start = last_stage_checkpoint(out, plan, TOY_STAGES[index - 1])

    def batches(step: int) -> TrainingBatch:
        return toy_world.batch(stage, np.random.default_rng([seed, config.seed, index, step]), settings.rows)

    train(
        batches,
        _STAGE_OBJECTIVES[stage],
        settings.training,
        out / stage,
        start=start,
        tokenizer=toy_world.tokenizer,
        save_at=settings.saved,
        seed=seed,
        on_progress=on_progress,
    )


def _ordered(stages: Sequence[str]) -> list[str]:
    return [stage for stage in TOY_STAGES if stage in stages]


def _plan_settings(plan: ToyModelSize) -> dict[str, Any]:
    return {"plan": {**asdict(plan), "stages": {name: asdict(stage) for name, stage in plan.stages.items()}}}
