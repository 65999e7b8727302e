"""Weight differences of two models, ΔW = W_tuned − W_base, and a model with a multiple of one added (task arithmetic, arXiv:2212.04089)."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ontogeny.errors import BadInput
from ontogeny.models.model import Model, linear_matrix
from ontogeny.sites import Site


@dataclass(frozen=True, eq=False)
class BlockMatrix:
    """The matrix of a linear layer of a block, in one orientation for all families: y = W x."""

    layer: int
    """Number of the block, counted from 1."""
    path: str
    """Path of the layer from the block, such as `mlp.c_fc`."""
    site: Site
    """`attn.l` or `mlp.l`."""
    parameter: str
    """Name of the weight in the network."""
    module: nn.Module
    weight: Float[Tensor, "out in"]
    """Its columns span outputs, its rows inputs, also where the layer stores the transpose (Conv1D); a view of the weight."""
    is_transposed: bool
    """Whether the stored weight is the transpose of `weight`."""

    def stored(self, matrix: Float[Tensor, "out in"]) -> Tensor:
        """A matrix of this orientation as the layer stores it."""
        return matrix.T if self.is_transposed else matrix


def block_matrices(model: Model) -> tuple[BlockMatrix, ...]:
    """The matrices of all linear layers in the blocks of a model, block by block.

    Raises:
        BadInput: the blocks have no linear layers, or these carry adapters that are not merged.
    """
    names = {id(parameter): name for name, parameter in model.network.named_parameters()}
    matrices = []
    for layer in range(1, model.layers + 1):
        for path, module in model.block(layer).named_modules():
            if hasattr(module, "get_base_layer"):
                raise BadInput(
                    f"weights must be merged, got an adapter at {path} of block {layer}: load the stage with `load_model`, which merges it."
                )
            if not _is_linear(module):
                continue
            weight = linear_matrix(module).T
            part = "attn" if f"{path}.".startswith(f"{model.architecture.attn}.") else "mlp"
            site = Site("attn", layer) if part == "attn" else Site("mlp", layer)
            name = names[id(module.get_parameter("weight"))]
            matrices.append(
                BlockMatrix(layer, path, site, name, module, weight.detach(), not isinstance(module, nn.Linear))
            )
    if not matrices:
        raise BadInput(
            f"the blocks of {model.network.config.model_type} must have linear layers, got none: name another model."
        )
    return tuple(matrices)


def _is_linear(module: nn.Module) -> bool:
    """Whether it is a linear layer, also GPT-2's Conv1D, which stores the transpose."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def parameter_differences(base: nn.Module, tuned: nn.Module) -> dict[str, Tensor]:
    """Tuned minus base, by name of the parameter, in float32 on the base's device; tied parameters once.

    Raises:
        BadInput: the networks have other parameters, or other shapes.
    """
    first, second = (dict(network.named_parameters()) for network in (base, tuned))
    if alone := sorted(first.keys() ^ second.keys()):
        raise BadInput(
            f"both models must have the same parameters, got {alone[0]} in one only: compare stages of one lineage."
        )
    for name, parameter in first.items():
        if parameter.shape != second[name].shape:
            shapes = f"{list(parameter.shape)} and {list(second[name].shape)}"
            raise BadInput(
                f"{name} must have one shape in both models, got {shapes}: compare stages of one architecture."
            )
    return {
        name: second[name].detach().to(parameter.device, torch.float32) - parameter.detach().float()
        for name, parameter in first.items()
    }


@contextlib.contextmanager
def changed_weights(network: nn.Module, change: Mapping[str, Tensor], alpha: float = 1.0) -> Iterator[None]:
    """While open, the network's parameters have `alpha` times the change added; then they are restored bit for bit.

    Args:
        change: By name of the parameter, as it is stored.
        alpha: 0 leaves the weights alone.
    """
    parameters = dict(network.named_parameters())
    if unknown := sorted(change.keys() - parameters.keys()):
        raise BadInput(
            f"`change` must name parameters of the network, got {unknown[0]}: take the differences of two stages of it."
        )
    before = {name: parameters[name].detach().clone() for name in change} if alpha else {}
    try:
        with torch.no_grad():
            for name, value in before.items():
                parameters[name].copy_(value.float() + alpha * change[name].to(value.device))
        yield
    finally:
        with torch.no_grad():
            for name, value in before.items():
                parameters[name].copy_(value)
