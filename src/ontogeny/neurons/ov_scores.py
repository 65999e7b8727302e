"""OV scores: how much the diagonal of each head's OV matrix excites chosen neurons, to find heads that drive them (arXiv:2504.14379).

The score of a head is the mean activation of the neurons if the MLP's input is diag(W_V W_O), the self-map of each residual dimension. In
the paper the neurons are those of a GLU, σ(W_gate x) · (W_up x); here they are whatever the MLP computes, gated or not.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ontogeny.errors import BadInput
from ontogeny.models.hooks import read_hooks
from ontogeny.models.model import Model, output_weight
from ontogeny.sites import Site

_LINEARITY = 1e-3
"""Largest relative deviation from a linear map of values."""


@torch.no_grad()
def ov_diagonals(model: Model) -> Float[Tensor, "layer head d"]:
    """Diagonal of W_V W_O of every head, without biases.

    Values are read from a pass over single tokens, which attend to themselves alone, with unit vectors as the input of attention: fused
    projections, groups of heads and adapters need no code of their own.

    Raises:
        BadInput: values that are not a linear map of the input of attention, or a family that is not causal.
    """
    if not model.architecture.causal:
        raise BadInput(f"OV scores need a causal model, got {model.network.config.model_type}: use another one.")
    example = next(p for p in model.network.parameters() if p.is_floating_point())
    # The unit vectors, nothing, and a sum of two that shows whether the map is linear.
    inputs = torch.cat([torch.eye(model.d), torch.zeros(2, model.d)]).to(example)
    inputs[-1, :2] = 2.0
    layers = list(range(1, model.layers + 1))
    read = _read_with_input(model, model.architecture.attn, "head", layers, inputs)
    diagonals = []
    for layer in layers:
        values = (read[layer] - read[layer][model.d]).unflatten(1, (model.heads, model.d_head))
        gap = values[-1] - 2 * (values[0] + values[1])
        if float(gap.norm()) > _LINEARITY * max(float(values[-1].norm()), 1e-12):
            raise BadInput(
                f"values of {model.network.config.model_type} must be a linear map of the input of attention, and block {layer} has "
                "another: its heads have no OV matrix."
            )
        out = output_weight(model, Site("head", layer)).float().cpu().unflatten(0, (model.heads, model.d_head))
        diagonals.append(torch.einsum("dhk,hkd->hd", values[: model.d], out))
    return torch.stack(diagonals)


@torch.no_grad()
def ov_scores(model: Model, units: Sequence[tuple[int, int]]) -> Float[Tensor, "layer head"]:
    """Mean activation of the neurons if the MLP's input is the diagonal of a head's OV matrix.

    Args:
        units: (layer, unit) of neurons, such as those whose value vectors are nearest to a probe; layers from 1.

    Raises:
        BadInput: no neurons, one that the model does not have, a mixture of experts, or as `ov_diagonals`.
    """
    if not units:
        raise BadInput("`units` must name at least one neuron, got none.")
    for layer, unit in units:
        width = len(output_weight(model, Site("mlp", layer))) if 1 <= layer <= model.layers else 0
        if not 0 <= unit < width:
            raise BadInput(
                f"`units` must be (layer, unit) of {model.layers} layers (from 1), got {(layer, unit)}: name others."
            )
    mlp = model.architecture.mlp
    if isinstance(model.part(1, mlp), nn.Linear):
        raise BadInput(
            f"the MLP of {model.network.config.model_type} must be a module of its own to score its neurons, got the map {mlp}: use "
            "another family."
        )
    diagonals = ov_diagonals(model).flatten(0, 1)
    layers = sorted({layer for layer, _ in units})
    read = _read_with_input(model, mlp, "neuron", layers, diagonals)
    total = torch.zeros(len(diagonals))
    for layer in layers:
        total += read[layer][:, [unit for there, unit in units if there == layer]].sum(1)
    return (total / len(units)).unflatten(0, (model.layers, model.heads))


def _read_with_input(
    model: Model, path: str, part: str, layers: Sequence[int], inputs: Float[Tensor, "row d"]
) -> dict[int, Float[Tensor, "row width"]]:
    """Output of a part of each layer if its module, at the path from a block, is given these inputs: one pass over one token a row."""
    read: dict[int, Tensor] = {}

    def sink(_: str, layer: int, value: Tensor) -> None:
        read[layer] = value.reshape(len(inputs), -1).float().cpu()

    ids = torch.zeros(len(inputs), 1, dtype=torch.long, device=model.device)
    with contextlib.ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(_given_input(model.part(layer, path), inputs))
        hooks.enter_context(read_hooks(model, [(part, layer) for layer in layers], sink))
        model.body(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return read


@contextlib.contextmanager
def _given_input(module: nn.Module, inputs: Float[Tensor, "row d"]) -> Iterator[None]:
    """In forward passes, the module receives these inputs in place of its own."""

    def replace(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        own = args[0] if args else kwargs["hidden_states"]
        given = inputs.reshape(own.shape).to(own)
        return ((given, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": given})

    handle = module.register_forward_pre_hook(replace, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
