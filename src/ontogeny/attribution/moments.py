"""Learning rates and optimizer moments that a trainer published beside a checkpoint on disk.

Rates come from `trainer_state.json`, or from the `training.json` of `ontogeny train`; second moments from `optimizer.pt` (transformers'
Trainer), which is read without running code.
"""

import json
import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ontogeny.attribution.optimizer_steps import Vector
from ontogeny.attribution.segments import adam_preconditioner
from ontogeny.errors import BadInput
from ontogeny.lineage import Checkpoint
from ontogeny.training.loop import TrainingConfig, learning_rate_at

_OPTIMIZER_FILE = "optimizer.pt"


@dataclass(frozen=True)
class PublishedOptimizer:
    """The optimizer at the end of a stage."""

    preconditioner: Vector | None
    """Factor of each parameter's step; None with SGD."""
    momentum: float
    decay: Vector


def rate_sum(checkpoint: Checkpoint) -> float:
    """Sum of the learning rates of all steps up to a checkpoint of its stage.

    Raises:
        BadInput: no rates are on disk.
    """
    folder, step = Path(checkpoint.source), checkpoint.step
    if checkpoint.is_local and step:
        log = _json(folder / "trainer_state.json").get("log_history")
        rates = {
            int(entry["step"]): float(entry["learning_rate"])
            for entry in (log if isinstance(log, list) else ())
            if isinstance(entry, dict) and "learning_rate" in entry and "step" in entry and int(entry["step"]) <= step
        }
        if rates:
            # Between entries of the log the rate of the next entry holds.
            total, before = 0.0, 0
            for at in sorted(rates):
                total, before = total + (at - before) * rates[at], at
            return total + (step - before) * rates[before]
        training = _json(folder.parent / "training.json").get("training")
        if isinstance(training, dict):
            config = TrainingConfig(**{**training, "betas": tuple(training["betas"])})
            return sum(learning_rate_at(i, config) for i in range(1, step + 1))
    raise BadInput(
        f"`segments` needs the learning rates of {checkpoint.label}, and neither trainer_state.json nor training.json has them: keep these "
        "files beside the checkpoint; all other tiers remain."
    )


def published_optimizer(
    checkpoint: Checkpoint, network: nn.Module, *, allow_pickle: bool = False
) -> PublishedOptimizer:
    """The optimizer's moments beside a checkpoint, in the order of the network's parameters.

    Args:
        allow_pickle: Whether the file, a restricted pickle of tensors, may be read.

    Raises:
        BadInput: none is on disk or it may not be read, it lacks a field, or it belongs to another network.
    """
    path = Path(checkpoint.source) / _OPTIMIZER_FILE
    if not checkpoint.is_local or not path.is_file():
        raise BadInput(
            f"`segments` needs the optimizer's moments of {checkpoint.label}, and {_OPTIMIZER_FILE} is not beside the checkpoint: keep it "
            "there; all other tiers remain."
        )
    if not allow_pickle:
        raise BadInput(
            f"`segments` needs {path}, which is a pickle: set `allow_pickle` to read it; all other tiers remain."
        )
    try:
        # Tensors and plain containers only: `weights_only` refuses everything else.
        saved: Any = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
        groups, states = saved["param_groups"], saved["state"]
    except (OSError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError, EOFError) as error:
        reason = " ".join(str(error).split())[:120]
        raise BadInput(
            f"{path} cannot be read as the state of an optimizer ({reason}): save it again; all other tiers remain."
        ) from None
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    places = _places(groups, parameters, path)
    roots: list[Tensor] = []
    for name, p in parameters.items():
        group, index = places[name]
        state: Mapping[str, Any] = states.get(index, {})
        if "momentum_buffer" in state or "momentum" in group:
            continue
        if "exp_avg_sq" not in state or "step" not in state:
            raise BadInput(
                f"the record {path} lacks exp_avg_sq or step of {name}: `segments` needs Adam's second moments; all other tiers remain."
            )
        if state["exp_avg_sq"].shape != p.shape:
            raise BadInput(
                f"{path} has moments of {name} of another shape than the checkpoint: give those of this training."
            )
        second = state["exp_avg_sq"].float().flatten()
        roots.append(adam_preconditioner(second, int(state["step"]), float(group["betas"][1]), float(group["eps"])))
    decay = torch.cat(
        [torch.full((p.numel(),), float(places[name][0].get("weight_decay", 0.0))) for name, p in parameters.items()]
    )
    if not roots:
        momentum = max((float(group.get("momentum", 0.0)) for group in groups), default=0.0)
        return PublishedOptimizer(None, momentum, decay)
    return PublishedOptimizer(torch.cat(roots), 0.0, decay)


def _places(
    groups: list[dict[str, Any]], parameters: Mapping[str, nn.Parameter], path: Path
) -> dict[str, tuple[dict[str, Any], Any]]:
    """Group and index of each parameter: by the names that the optimizer kept, or in the Trainer's order, matrices first."""
    names = [name for group in groups for name in group.get("param_names", ())]
    if not names:
        matrices = [name for name, p in parameters.items() if p.ndim >= 2]
        others = [name for name in parameters if name not in matrices]
        names = list(parameters) if len(groups) == 1 else [*matrices, *others]
    indices = [(group, index) for group in groups for index in group["params"]]
    if len(indices) != len(names) or set(names) != set(parameters):
        raise BadInput(
            f"{path} must have the moments of this network's {len(parameters)} parameters, got {len(indices)}: give those of this training."
        )
    return dict(zip(names, indices, strict=True))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def momentum_rate(total: float, optimizer: PublishedOptimizer) -> float:
    """The sum of rates as momentum makes it: a step of SGD is repeated 1/(1 − momentum) times in all."""
    if not 0 <= optimizer.momentum < 1 or not math.isfinite(total):
        raise BadInput(f"`momentum` must be at least 0 and below 1, got {optimizer.momentum}.")
    return total / (1 - optimizer.momentum)
