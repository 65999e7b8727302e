"""Training several seeds of a small network at once: stacked parameters, one vmapped call (`torch.func`).

The time of a small network is call overhead, so eight seeds cost little more than one. Results equal those of training seed by seed, up
to rounding. Networks with dropout or running means are not supported: use `train_module`.
"""

import copy
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ontogeny.errors import BadInput
from ontogeny.training.checkpoint_schedule import check_schedule
from ontogeny.training.checkpoints import (
    STATES_FOLDER,
    check_same_training_run,
    checkpoint_steps,
    delete_old_states,
    load_training_state,
    network_tensors,
    save_module,
    write_checkpoint,
    write_training_state,
)
from ontogeny.training.loop import TrainingConfig, TrainingSession, learning_rate_at, make_optimizer
from ontogeny.training.objectives.objective import Objective, describe_objective

SeededBatches = Callable[[int, int], Any]
"""The batch of a step and a seed: a tensor, or tuples or dictionaries of tensors, with equal shapes for all seeds."""


def train_seeds(
    batches: SeededBatches,
    objective: Objective,
    config: TrainingConfig,
    out: Path,
    *,
    make: Callable[[], nn.Module],
    save_at: Sequence[int],
    seeds: Iterable[int],
) -> tuple[Path, ...]:
    """Train a network from each seed; resumes if interrupted.

    Args:
        make: Builds the network from the random numbers of its seed.

    Returns:
        The runs `out/seed-{s}`, each with `checkpoint-{step}/model.safetensors`.

    Raises:
        BadInput: no seeds, a network that cannot be stacked, another run's checkpoints in `out`, or a loss that is not finite.
    """
    seeds = tuple(seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise BadInput(f"`seeds` must be at least one seed, each once, got {list(seeds)}.")
    marks = check_schedule(save_at, config.steps)
    runs = tuple(out / f"seed-{seed}" for seed in seeds)
    with torch.random.fork_rng(devices=[]):
        networks = [_make_network(make, seed) for seed in seeds]
        shapes = {name: list(value.shape) for name, value in network_tensors(networks[0]).items()}
        settings = {"training": asdict(config), "objective": describe_objective(objective), "model": shapes}
        for run, seed in zip(runs, seeds, strict=True):
            check_same_training_run(run, {**settings, "save_at": list(marks), "seed": seed, "seeds": list(seeds)}, {})
        if all((run / f"checkpoint-{config.steps}").is_dir() for run in runs):
            return runs
        stack = _stack_networks(networks)
        session = TrainingSession(stack, make_optimizer(stack, config, matrix=3), None)
        _loop(session, networks[0], batches, objective, config, out, dict(zip(seeds, runs, strict=True)), set(marks))
    return runs


def _loop(
    session: TrainingSession,
    skeleton: nn.Module,
    batches: SeededBatches,
    objective: Objective,
    config: TrainingConfig,
    out: Path,
    runs: dict[int, Path],
    marks: set[int],
) -> None:
    def loss(parameters: Mapping[str, Tensor], batch: Any) -> Tensor:
        def network(*args: Any, **kwargs: Any) -> Any:
            return functional_call(skeleton, dict(parameters), args, kwargs)

        return objective(network, batch, None)  # type: ignore[arg-type]

    losses_of = vmap(loss)
    saved = [checkpoint_steps(out / STATES_FOLDER, ""), *map(checkpoint_steps, runs.values())]
    if resumable := set.intersection(*map(set, saved)):
        load_training_state(out / STATES_FOLDER / str(max(resumable)), session)
    elif 0 in marks:
        _save(out, runs, session, skeleton)
    parameters: dict[str, Tensor] = dict(session.network.named_parameters())
    while session.step < config.steps:
        session.step += 1
        batch = _stack_parts([batches(session.step, seed) for seed in runs])
        for group in session.optimiser.param_groups:
            group["lr"] = learning_rate_at(session.step, config)
        losses = losses_of(parameters, batch)
        _check_finite(losses, runs, session.step)
        session.optimiser.zero_grad(set_to_none=True)
        losses.sum().backward()  # no seed's loss depends on another's parameters
        _clip([p.grad for p in parameters.values() if p.grad is not None], config.clip)
        session.optimiser.step()
        if session.step in marks:
            _save(out, runs, session, skeleton)
    shutil.rmtree(out / STATES_FOLDER, ignore_errors=True)


def _make_network(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    network = make().train()
    buffers = set(network_tensors(network)) - {name for name, _ in network.named_parameters()}
    drops = any(isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0 for part in network.modules())
    if buffers or drops:
        reason = f"running values ({sorted(buffers)[0]})" if buffers else "dropout"
        raise BadInput(f"the network has {reason}, so its seeds cannot be stacked: use train_module seed by seed.")
    return network


def _stack_networks(networks: Sequence[nn.Module]) -> nn.Module:
    """A module with the same names whose parameters have a leading seed axis; it is never called."""
    stack = copy.deepcopy(networks[0])
    for name, _ in networks[0].named_parameters():
        owner, _, leaf = name.rpartition(".")
        stacked = torch.stack([network.get_parameter(name).detach() for network in networks])
        setattr(stack.get_submodule(owner), leaf, nn.Parameter(stacked))
    return stack


def _stack_parts(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if isinstance(first, Tensor):
        if len({part.shape for part in parts}) > 1:
            raise BadInput(
                f"batches of all seeds must have one shape, got {sorted({tuple(part.shape) for part in parts})}."
            )
        return torch.stack(list(parts))
    if isinstance(first, tuple):
        return tuple(_stack_parts(same) for same in zip(*parts, strict=True))
    if isinstance(first, dict):
        return {key: _stack_parts([part[key] for part in parts]) for key in first}
    raise BadInput(f"a batch must be a tensor, a tuple or a dictionary of tensors, got {type(first).__name__}.")


@torch.no_grad()
def _clip(gradients: Sequence[Float[Tensor, "seed *shape"]], largest: float) -> None:
    """Clip each seed's gradient by its own norm."""
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    factors = (largest / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors.view(-1, *[1] * (gradient.ndim - 1)))


def _check_finite(losses: Float[Tensor, " seed"], seeds: Iterable[int], step: int) -> None:
    if not bool(losses.isfinite().all()):
        diverged = [seed for seed, value in zip(seeds, losses.tolist(), strict=True) if not abs(value) < float("inf")]
        raise BadInput(f"the loss of seed {diverged[0]} is not finite at step {step}: use a smaller learning rate.")


def _save(out: Path, runs: dict[int, Path], session: TrainingSession, skeleton: nn.Module) -> None:
    write_training_state(out / STATES_FOLDER / str(session.step), session)
    network = copy.deepcopy(skeleton)
    for index, run in enumerate(runs.values()):
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(session.network.get_parameter(name)[index])
        write_checkpoint(run, partial(save_module, network), step=session.step)
    delete_old_states(out, before=session.step)
