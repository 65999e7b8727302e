"""Completion of low-rank matrices by a BERT encoder: copying, plateau, drop, and which part is late (arXiv:2410.22244)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ontogeny.jobs.study.paper_study import Lab
from ontogeny.records import Record
from ontogeny.studies.abrupt_learning._claims import END, PLATEAU
from ontogeny.studies.abrupt_learning._inside import inside_rows
from ontogeny.studies.abrupt_learning._settings import Settings
from ontogeny.training.in_memory import training_sessions
from ontogeny.training.loop import TrainingConfig, TrainingRecipe, TrainingSession
from ontogeny.training.toy_models.matrix_encoder import MATRIX_PARTS, MatrixEncoder, matrix_part
from ontogeny.worlds import low_rank

_STILL = 0.9
"""Least error at missing entries on the plateau."""


@dataclass(frozen=True)
class _Task:
    """A world with its held-out matrices."""

    world: low_rank.World
    held_out: low_rank.WorldBatch
    mirrored: low_rank.WorldBatch
    """The negative of each held-out matrix, with the same gaps."""
    shuffled: low_rank.WorldBatch

    @classmethod
    def of(cls, settings: Settings, seed: int) -> "_Task":
        factors: Any = settings.matrix_factors
        world = low_rank.make(
            low_rank.Config(
                settings.matrix,
                settings.matrix,
                settings.matrix_rank,
                factors=factors,
                missing=settings.matrix_missing,
                decimals=settings.matrix_decimals,
                largest=settings.matrix_largest,
                seed=seed,
            )
        )
        sets = low_rank.evaluation(world)
        shuffled = low_rank.shuffle_entries(world, sets["random"], np.random.default_rng([seed, 4]))
        return cls(world, sets["random"], sets["mirrored"], shuffled)

    @property
    def missing(self) -> np.ndarray:
        return self.held_out.inputs == low_rank.MASK_ID

    def errors(self, network: nn.Module, batch: low_rank.WorldBatch) -> np.ndarray:
        """Squared error at each entry, as a share of the variance of the entries."""
        with torch.no_grad():
            output = network(torch.from_numpy(batch.inputs)).double().numpy()
        return np.asarray((output - batch.targets) ** 2 / self.held_out.targets.var())


def matrix_rows(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one training run and of the model at its plateau and its end, and of runs of one part at a time."""
    task = _Task.of(settings, lab.seed)
    plateau: dict[str, Tensor] = {}
    for session in _sessions(settings, lab.seed, task, settings.matrix_steps, None, {}):
        network = session.network
        if session.step == 0:
            untrained = _weights(network)
        if _is_measured(session.step, settings.matrix_steps):
            errors = task.errors(network, task.held_out)
            yield from _loss_rows(lab, task, network, errors, session.step)
            if session.step and (not plateau or errors[task.missing].mean() >= _STILL):
                plateau = _weights(network)
    trained = _weights(network)
    models = {"untrained": untrained, PLATEAU: plateau, END: trained}
    yield from inside_rows(settings, lab, task.world, task.held_out, task.mirrored, _loader(settings, task), models)
    yield from _baseline_rows(lab, task, {name: _loader(settings, task)(weights) for name, weights in models.items()})
    for part in MATRIX_PARTS:
        curve = _part_curve(settings, lab.seed + 1000, task, part, trained)
        names = [(f"{part} of the encoder alone", None)]
        if part == "MLP":
            names += [(f"{name} of the encoder alone", "mlp_again") for name in ("MLP", "token embeddings")]
        for name, control in names:
            yield from _curve_rows(lab, curve, name, control)
    again = _part_curve(settings, lab.seed + 2000, task, "MLP", trained)  # the null of the order: the MLP twice
    yield from _curve_rows(lab, again, "positions of the encoder alone", "mlp_again")


def _part_curve(
    settings: Settings, seed: int, task: _Task, part: str, trained: Mapping[str, Tensor]
) -> list[tuple[int, float]]:
    """Step and error at missing entries while one part is trained alone."""
    sessions = _sessions(settings, seed, task, settings.part_steps, part, trained)
    return [
        (session.step, float(task.errors(session.network, task.held_out)[task.missing].mean()))
        for session in sessions
        if _is_measured(session.step, settings.part_steps)
    ]


def _curve_rows(lab: Lab, curve: list[tuple[int, float]], condition: str, control: str | None) -> Iterator[Record]:
    for step, error in curve:
        yield lab.row("missing_loss", error, condition, step=step, control=control)


def _is_measured(step: int, steps: int) -> bool:
    return step % max(1, steps // 40) == 0 or step == steps


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _loader(settings: Settings, task: _Task) -> Callable[[Mapping[str, Tensor]], MatrixEncoder]:
    """Builds the encoder with given weights; with none, at random."""

    def load(weights: Mapping[str, Tensor]) -> MatrixEncoder:
        network = MatrixEncoder(
            task.world.vocabulary,
            settings.matrix**2,
            settings.matrix_width,
            settings.matrix_layers,
            settings.matrix_spread,
        )
        if weights:
            network.load_state_dict(weights)
        return network

    return load


def _sessions(
    settings: Settings, seed: int, task: _Task, steps: int, part: str | None, trained: Mapping[str, Tensor]
) -> Iterator[TrainingSession]:
    """Train the encoder; with a part, that part alone from random weights, all others as they were at the end."""

    def make() -> nn.Module:
        network = _loader(settings, task)({})
        for name, parameter in network.named_parameters():
            if part is not None and matrix_part(name) != part:
                parameter.data.copy_(trained[name])
                parameter.requires_grad_(False)
        return network

    def batches(step: int) -> tuple[Tensor, Tensor]:
        batch = low_rank.sample(task.world, np.random.default_rng([seed, step]), settings.matrix_batch)
        return torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets).float()

    def objective(network: nn.Module, batch: tuple[Tensor, Tensor], _: nn.Module | None) -> Tensor:
        return (network(batch[0]) - batch[1]).square().mean()

    config = TrainingConfig(
        steps,
        settings.matrix_rate,
        warmup=min(settings.matrix_warmup, steps),
        floor=1.0,
        weight_decay=0.0,
        betas=(0.9, settings.matrix_beta),
        clip=1.0,
    )
    return training_sessions(TrainingRecipe(make, batches, objective, config, seed))


def _loss_rows(lab: Lab, task: _Task, network: nn.Module, errors: np.ndarray, step: int) -> Iterator[Record]:
    """Errors at observed and missing entries, those of shuffled matrices, and of random halves of the observed entries."""
    missing, n = task.missing, len(task.held_out)
    half = np.random.default_rng([lab.seed, 5]).random(missing.shape) < 0.5
    shuffled = task.errors(network, task.shuffled)
    for metric, where, side in (("observed_loss", ~missing, half), ("missing_loss", missing, ~half)):
        yield lab.row(metric, float(errors[where].mean()), "matrix", step=step, n=n)
        yield lab.row(metric, float(shuffled[where].mean()), "matrix", step=step, n=n, control="shuffled_entries")
        halves = float(errors[~missing & side].mean())
        yield lab.row(metric, halves, "matrix", step=step, n=n, control="random_halves")


def _baseline_rows(lab: Lab, task: _Task, networks: Mapping[str, MatrixEncoder]) -> Iterator[Record]:
    """The copy test, and the error at missing entries beside that of the completion of least nuclear norm."""
    missing, n = task.missing, len(task.held_out)
    number = float(np.abs(task.held_out.targets).max())
    replaced = torch.from_numpy(low_rank.fill_missing(task.world, task.held_out, number))
    for name, network in networks.items():
        with torch.no_grad():
            copied = float(((network(replaced).double().numpy() - number)[missing] ** 2).mean())
        yield lab.row("copy_error", copied, name, n=n)
        if name == "untrained":
            for condition in networks:
                yield lab.row("copy_error", copied, condition, n=n, control="untrained")
    coordinates = task.held_out.coordinates
    completion = low_rank.complete_matrix(coordinates["matrix"], coordinates["observed"])
    exact = (completion.matrix.reshape(missing.shape) - task.held_out.targets) ** 2
    least = float(exact[missing].mean() / task.held_out.targets.var())
    for control, name in ((None, END), ("plateau", PLATEAU)):
        error = float(task.errors(networks[name], task.held_out)[missing].mean())
        yield lab.row("completion_error", error, "encoder", n=n, control=control)
        yield lab.row("completion_error", least, "least nuclear norm", n=n, control=control)
