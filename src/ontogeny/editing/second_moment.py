"""Second moment of the keys of an MLP, E[kkᵀ] over the tokens of texts: the statistic that an edit must preserve."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.editing.closed_forms import NullSpace, null_space
from ontogeny.errors import BadInput
from ontogeny.models.forward import forward_padded
from ontogeny.models.hooks import read_hooks
from ontogeny.models.model import Model, output_weight
from ontogeny.sites import Site

_MOST_TOKENS = 100_000
"""Tokens after which further texts are not read."""


@dataclass(frozen=True, eq=False)
class SecondMoment:
    """Uncentred second moment of the input of an MLP's output weights, float64."""

    layer: int
    matrix: Float[Tensor, "inside inside"]
    tokens: int
    _null_spaces: dict[float, NullSpace] = field(default_factory=dict, repr=False)

    def with_ridge(self, ridge: float) -> Float[Tensor, "inside inside"]:
        """The matrix with `ridge` times its mean eigenvalue on the diagonal."""
        inside = len(self.matrix)
        return self.matrix + ridge * float(self.matrix.trace()) / inside * torch.eye(inside, dtype=self.matrix.dtype)

    def null_space(self, share: float) -> NullSpace:
        """The share of the eigenvectors that the keys use least; computed once."""
        if share not in self._null_spaces:
            self._null_spaces[share] = null_space(self.matrix, share)
        return self._null_spaces[share]


@torch.no_grad()
def key_second_moments(
    model: Model, rows: Sequence[Int[Tensor, " token"]], layers: Sequence[int], *, batch: int = 32
) -> Mapping[int, SecondMoment]:
    """Second moments of the keys at some layers, over all tokens of the first 100,000 tokens of the rows.

    Args:
        rows: token ids of the texts, best those that the model was trained on.

    Raises:
        BadInput: no rows, a layer that is not there, or a mixture of experts.
    """
    if not rows:
        raise BadInput(
            "`texts` must be given for the second moment of the keys, got none: name texts like those of the training."
        )
    for layer in layers:
        if not 1 <= layer <= model.layers:
            raise BadInput(f"`layer` must be 1 to {model.layers}, the blocks of this model, got {layer}.")
    sizes = [len(output_weight(model, Site("mlp", layer))) for layer in layers]
    sums = {layer: torch.zeros(n, n, dtype=torch.float64) for layer, n in zip(layers, sizes, strict=True)}
    ends = torch.tensor([len(row) for row in rows]).cumsum(0)
    read = [row[: model.context] for row, end in zip(rows, ends.tolist(), strict=True) if end - len(row) < _MOST_TOKENS]
    real: list[Tensor] = []

    def add(_: str, layer: int, value: Tensor) -> None:
        keys = value[real[-1]].double()
        sums[layer] += (keys.T @ keys).cpu()

    @contextlib.contextmanager
    def lengths(chosen: list[int]) -> Iterator[None]:
        counts = torch.tensor([len(read[i]) for i in chosen], device=model.device)
        real[:] = [torch.arange(int(counts.max()), device=model.device) < counts[:, None]]
        yield

    with read_hooks(model, [("neuron", layer) for layer in dict.fromkeys(layers)], add):
        for _ in forward_padded(model, read, batch=batch, body=True, context=lengths):
            pass
    count = sum(map(len, read))
    return {layer: SecondMoment(layer, total / count, count) for layer, total in sums.items()}
