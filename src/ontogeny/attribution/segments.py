"""Effects of stages from a few segments of training, each with constant curvature (SOURCE, arXiv:2405.12186; with Adam's moments).

Over a segment of K steps with rate η the weights' response to an earlier change decays as exp(−ηK·P·G): G is the Gauss–Newton matrix of the
stage's loss at the segment's end, P the preconditioner 1/(√v + ε) from published second moments, or 1. The exponential acts through a small
Krylov space (Lanczos), so that a segment costs a few products with G whatever its length. It needs checkpoints and the stage's data, and no
recorded path; it answers *updates skipped*.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ontogeny.attribution.optimizer_steps import Curvature, Vector
from ontogeny.attribution.path import TrainingPath
from ontogeny.attribution.recorded_tiers import Behaviour, behaviour_gradient
from ontogeny.errors import BadInput

KRYLOV_RANK = 8
"""Products with the curvature per segment."""
_TINY = 1e-12


@dataclass(frozen=True)
class Segment:
    """A part of a stage between two checkpoints."""

    stage: int
    change: Vector
    """Parameters at its end minus those at its start."""
    rate: float
    """Sum of the learning rates of its steps; with momentum over 1 − momentum."""
    curvature: Curvature
    """Product with the Gauss–Newton matrix at its end."""
    preconditioner: Vector | None = None
    """Positive factor of each parameter's step; None: 1, as with SGD."""
    decay: Vector | None = None
    """Weight decay of each parameter."""


def segment_scores(
    segments: Sequence[Segment], gradient: Vector, stages: int, *, rank: int = KRYLOV_RANK
) -> tuple[float, ...]:
    """Effect of each stage on a behaviour, by one pass backwards over the segments.

    Args:
        segments: In the order of training.
        gradient: Gradient of the behaviour at the final parameters.
        stages: Number of stages.
        rank: Dimensions of the Krylov space of each segment.

    Raises:
        BadInput: no segments.
    """
    if not segments:
        raise BadInput("`segments` must hold at least one segment, got none: name checkpoints.")
    scores, adjoint = [0.0] * stages, gradient.double()
    for segment in reversed(segments):
        root = torch.ones_like(adjoint) if segment.preconditioner is None else segment.preconditioner.double().sqrt()
        basis, values, vectors = _lanczos(
            lambda v, s=segment, root=root: root * s.curvature((root * v).to(gradient)).double(),
            root * adjoint,
            rank,
        )
        bent = values.clamp(min=0) * segment.rate
        first = vectors[0] * (root * adjoint).norm()
        # Inside its own stage a change is made step by step: the mean of the decay over the segment.
        mean = torch.where(bent > 1e-6, -torch.expm1(-bent) / bent.clamp(min=1e-6), 1 - bent / 2)
        own = basis @ (vectors @ (mean * first)) / root
        scores[segment.stage] += float(own @ segment.change.double())
        adjoint = basis @ (vectors @ (torch.exp(-bent) * first)) / root
        if segment.decay is not None:
            adjoint = adjoint * torch.exp(-segment.rate * segment.decay.double())
    return tuple(scores)


def path_segments(path: TrainingPath, *, per_stage: int = 1, batches: int = 8) -> list[Segment]:
    """Segments of a recorded path, as checkpoints with moments would give them.

    Args:
        per_stage: Segments of each stage.
        batches: Batches of a segment over which its curvature is averaged.
    """
    segments = []
    for stage in range(len(path.stages)):
        places = [index for index, step in enumerate(path.steps) if step.stage == stage]
        for part in range(per_stage):
            own = places[part * len(places) // per_stage : (part + 1) * len(places) // per_stage]
            if own:
                segments.append(_path_segment(path, stage, own, batches))
    return segments


def path_segment_scores(
    path: TrainingPath, behaviour: Behaviour, segments: Sequence[Segment], *, rank: int = KRYLOV_RANK
) -> tuple[float, ...]:
    """Effects of all stages of a recorded path on a behaviour, from its segments."""
    return segment_scores(segments, behaviour_gradient(path, behaviour), len(path.stages), rank=rank)


def adam_preconditioner(second: Vector, steps: int, beta: float, eps: float) -> Vector:
    """1/(√v̂ + ε), from Adam's second moment after a number of steps."""
    return 1 / ((second / (1 - beta**steps)).sqrt() + eps)


def _path_segment(path: TrainingPath, stage: int, places: Sequence[int], batches: int) -> Segment:
    first, last = path.steps[places[0]], path.steps[places[-1]]
    end, settings = path.after(places[-1]), last.settings
    adam = settings.optimizer == "adamw"
    rate = sum(path.steps[index].settings.rate for index in places)
    chosen = [places[i * len(places) // min(batches, len(places))] for i in range(min(batches, len(places)))]

    def curvature(direction: Vector) -> Vector:
        loss, at = path.stages[stage].loss, end.parameters
        products = [path.network.gauss_newton_product(at, loss, path.steps[i].batch, direction) for i in chosen]
        return torch.stack(products).mean(0)

    return Segment(
        stage,
        end.parameters - first.state.parameters,
        rate if adam else rate / (1 - settings.momentum),
        curvature,
        adam_preconditioner(end.second, settings.number, settings.betas[1], settings.eps) if adam else None,
        settings.decay,
    )


def _lanczos(product: Callable[[Vector], Vector], start: Vector, rank: int) -> tuple[Vector, Vector, Vector]:
    """Orthonormal basis of the Krylov space, and eigenvalues and eigenvectors of the symmetric matrix in it."""
    norm = start.norm()
    basis = [start / norm.clamp(min=_TINY)]
    diagonal, beside = [], []
    for _ in range(min(rank, len(start))):
        image = product(basis[-1])
        diagonal.append(image @ basis[-1])
        space = torch.stack(basis)
        # Twice, since one pass loses orthogonality in finite precision.
        for _ in range(2):
            image = image - space.T @ (space @ image)
        length = image.norm()
        if len(diagonal) == min(rank, len(start)) or float(length) <= 1e-9 * (float(diagonal[0].abs()) + _TINY):
            break
        beside.append(length)
        basis.append(image / length)
    small = torch.diag(torch.stack(diagonal))
    for i, value in enumerate(beside[: len(diagonal) - 1]):
        small[i, i + 1] = small[i + 1, i] = value
    values, vectors = torch.linalg.eigh(small)
    return torch.stack(basis[: len(diagonal)]).T, values, vectors
