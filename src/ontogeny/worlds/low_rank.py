"""Low rank: matrices U Vᵀ with missing entries, as tokens; a model first copies entries, then suddenly completes (arXiv:2410.22244).

Every entry is a token, row by row; a missing one is MASK. `complete_matrix` is the reference: completion of least nuclear norm
(arXiv:0805.4471), with a bound on its distance from the optimum.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ontogeny.errors import BadInput, unknown_name
from ontogeny.worlds._batch import WorldBatch

__all__ = [
    "MASK_ID", "Config", "MatrixCompletion", "World", "WorldBatch", "complete_matrix", "evaluation", "fill_missing",
    "make", "matrices", "sample", "score", "sequence", "shuffle_entries",
]  # fmt: skip

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Bools = NDArray[np.bool_]
_Factors = Literal["uniform", "normal", "laplace", "levels", "signs", "full"]

MASK_ID = 0


@dataclass(frozen=True)
class Config:
    rows: int = 7
    columns: int = 7
    rank: int = 2
    factors: _Factors = "uniform"
    """Distribution of the entries of U and V: uniform in ±scale, normal or Laplace of that scale, ±scale/2 and ±scale (`levels`), or
    ±scale (`signs`). `full`: no factors, the entries of the matrix itself are uniform in ±scale, a control that cannot be completed."""
    scale: float = 1.0
    missing: float = 0.3
    """Probability of masking an entry."""
    decimals: int = 2
    """Decimals of the entries, in inputs and targets."""
    largest: float = 10.0
    """Largest magnitude with a token; larger entries are clipped to it."""
    examples: int = 256
    """Matrices per evaluation set."""
    seed: int = 0


@dataclass(frozen=True)
class World:
    """Settings and the vocabulary that follows from them."""

    config: Config

    @property
    def vocabulary(self) -> int:
        """Number of tokens: MASK, the numbers in ascending order, and the separator as the last."""
        return 2 * self._max_number + 3

    @property
    def separator(self) -> int:
        return self.vocabulary - 1

    @property
    def _max_number(self) -> int:
        return round(self.config.largest * 10**self.config.decimals)

    def tokens(self, values: Floats) -> Ids:
        """Token ids of rounded numbers."""
        return 1 + self._max_number + np.rint(values * 10**self.config.decimals).astype(np.int64)

    def values(self, tokens: Ids) -> Floats:
        """Numbers of token ids; NaN for MASK and the separator."""
        numbers = (tokens - 1 - self._max_number) / 10**self.config.decimals
        return np.where((tokens == MASK_ID) | (tokens == self.separator), np.nan, numbers)


def make(config: Config | None = None) -> World:
    """Build the world of a seed.

    Raises:
        BadInput: a setting out of range.
    """
    config = config or Config()
    if not 1 <= config.rank <= min(config.rows, config.columns):
        raise BadInput(
            f"`rank` of {config.rows} × {config.columns} matrices must be 1 to {min(config.rows, config.columns)}, got {config.rank}."
        )
    if not 0 < config.missing < 1 or config.scale <= 0 or config.largest <= 0 or not 0 <= config.decimals <= 4:
        raise BadInput(
            f"`missing` must be between 0 and 1, `scale` and `largest` above 0, `decimals` 0 to 4, got {config.missing:g}, "
            f"{config.scale:g}, {config.largest} and {config.decimals}: correct them."
        )
    if config.factors not in get_args(_Factors):
        raise unknown_name("distribution of factors", config.factors, get_args(_Factors))
    return World(config)


def sample(world: World, rng: np.random.Generator, n: int) -> WorldBatch:
    """Token ids row by row as inputs, numbers as targets; coordinates `matrix`, `observed` and the factors `u` and `v`."""
    u, v, matrix = matrices(world, rng, n)
    return _batch(world, matrix, rng.random(matrix.shape) >= world.config.missing, {"u": u, "v": v})


def matrices(world: World, rng: np.random.Generator, n: int) -> tuple[Floats, Floats, Floats]:
    """Random U, V and rounded matrices; U and V are NaN if there are no factors."""
    config = world.config
    shape_u, shape_v = (n, config.rows, config.rank), (n, config.columns, config.rank)
    match config.factors:
        case "uniform":
            u, v = (rng.uniform(-config.scale, config.scale, shape) for shape in (shape_u, shape_v))
        case "normal":
            u, v = (rng.normal(0, config.scale, shape) for shape in (shape_u, shape_v))
        case "levels" | "signs":
            values = config.scale * np.array([-1.0, 1.0] if config.factors == "signs" else [-1.0, -0.5, 0.5, 1.0])
            u, v = (rng.choice(values, shape) for shape in (shape_u, shape_v))
        case "laplace":
            u, v = (rng.laplace(0, config.scale, shape) for shape in (shape_u, shape_v))
        case _:
            u, v = np.full(shape_u, np.nan), np.full(shape_v, np.nan)
    whole = (
        rng.uniform(-config.scale, config.scale, (n, config.rows, config.columns))
        if config.factors == "full"
        else u @ v.swapaxes(1, 2)
    )
    rounded = np.round(np.clip(whole, -config.largest, config.largest), config.decimals)
    return u, v, np.asarray(rounded + 0.0, dtype=np.float64)  # + 0.0: no negative zeros


def evaluation(world: World) -> Mapping[str, WorldBatch]:
    """Named sets, equal for equal worlds: `random` masks, whole `rows` or `columns` masked except one entry each, and the negatives of
    the first under the same masks (`mirrored`), for patching.
    """
    config = world.config
    rng = np.random.default_rng([config.seed, 1])
    random = sample(world, rng, config.examples)
    u, v, matrix = matrices(world, rng, config.examples)
    observed = random.coordinates["observed"]
    return {
        "random": random,
        "rows": _batch(world, matrix, _striped_mask(rng, config, len(matrix)), {"u": u, "v": v}),
        "columns": _batch(world, matrix, _striped_mask(rng, config, len(matrix), columns=True), {"u": u, "v": v}),
        "mirrored": _batch(
            world,
            -random.coordinates["matrix"] + 0.0,
            observed,
            {"u": -random.coordinates["u"], "v": random.coordinates["v"]},
        ),
    }


def shuffle_entries(world: World, batch: WorldBatch, rng: np.random.Generator) -> WorldBatch:
    """The same entries and gaps, each matrix with its entries in random order: a control that cannot be completed."""
    matrix = rng.permuted(batch.targets, axis=1).reshape(batch.coordinates["matrix"].shape)
    return _batch(world, matrix, batch.coordinates["observed"], {})


def fill_missing(world: World, batch: WorldBatch, value: float) -> Ids:
    """Inputs with a number in place of every missing entry: a model that copies returns that number."""
    number = world.tokens(np.array(round(value, world.config.decimals)))
    return np.where(batch.inputs == MASK_ID, number, batch.inputs)


def sequence(world: World, batch: WorldBatch) -> Ids:
    """Token ids for a causal model: the matrix with gaps, the separator, the complete matrix."""
    between = np.full((len(batch), 1), world.separator)
    return np.concatenate([batch.inputs, between, world.tokens(batch.targets)], axis=1)


def score(world: World, outputs: Floats, batch: WorldBatch) -> Mapping[str, Floats]:
    """The oracle: mean squared error of each matrix over all, observed and missing entries, and mean |output| at missing entries.
    NaN if a matrix has no such entry.
    """
    error, observed = (outputs - batch.targets) ** 2, batch.inputs != MASK_ID
    return {
        "loss": error.mean(1),
        "observed": _mean(error, observed),
        "missing": _mean(error, ~observed),
        "magnitude": _mean(np.abs(outputs), ~observed),
    }


@dataclass(frozen=True)
class MatrixCompletion:
    matrix: Floats
    """Example × row × column; equal to the input at observed entries."""
    norm: Floats
    """Nuclear norm of each matrix."""
    bound: Floats
    """Lower bound on the nuclear norm of any matrix with the observed entries."""


def complete_matrix(matrix: Floats, observed: Bools, *, steps: int = 500, weight: float = 0.3) -> MatrixCompletion:
    """Complete matrices with the smallest nuclear norm, by the alternating direction method of multipliers.

    The multiplier is a certificate: it is zero at missing entries, so its product with the matrix, divided by its spectral norm, bounds the
    norm from below. `norm - bound` is the largest possible distance from the optimum.
    """
    given = np.where(observed, matrix, 0.0)
    completed, multiplier = given.copy(), np.zeros_like(given)
    for _ in range(steps):
        u, singular, v = np.linalg.svd(completed - multiplier, full_matrices=False)
        smooth = (u * np.maximum(singular - weight, 0)[..., None, :]) @ v
        completed = np.where(observed, given, smooth + multiplier)
        multiplier = np.where(observed, multiplier + smooth - completed, 0.0)
    spectral = np.linalg.norm(multiplier, 2, axis=(-2, -1))
    product = np.abs((multiplier * given).sum((-2, -1)))
    bound = np.divide(product, spectral, out=np.zeros_like(product), where=spectral > 0)
    return MatrixCompletion(completed, np.linalg.svd(completed, compute_uv=False).sum(-1), bound)


def _batch(world: World, matrix: Floats, observed: Bools, factors: Mapping[str, Floats]) -> WorldBatch:
    flat = matrix.reshape(len(matrix), -1)
    inputs = np.where(observed.reshape(flat.shape), world.tokens(flat), MASK_ID)
    return WorldBatch(inputs, flat, {"matrix": matrix, "observed": observed, **factors})


def _striped_mask(rng: np.random.Generator, config: Config, n: int, *, columns: bool = False) -> Bools:
    """Mask two rows (or columns) of each matrix except one entry of each."""
    lines, length = (config.columns, config.rows) if columns else (config.rows, config.columns)
    observed = np.ones((n, lines, length), dtype=bool)
    which = np.argsort(rng.random((n, lines)), axis=1)[:, : min(2, lines)]
    example = np.arange(n)[:, None]
    observed[example, which] = False
    observed[example, which, rng.integers(length, size=which.shape)] = True
    return observed.swapaxes(1, 2) if columns else observed


def _mean(values: Floats, where: Bools) -> Floats:
    count = where.sum(1)
    return np.divide((values * where).sum(1), count, out=np.full(len(values), np.nan), where=count > 0)
