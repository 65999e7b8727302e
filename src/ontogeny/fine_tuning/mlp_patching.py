"""MLP outputs of one model put into another one of the same architecture, and moved as far at random (arXiv:2407.10264)."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.models.hooks import read_hooks, write_hooks
from ontogeny.models.model import Model
from ontogeny.sites import Site

Result = TypeVar("Result")
MlpOutputs = Mapping[int, Float[Tensor, "row token d"]]
"""Output of the MLP of each block, from 1 on."""


def mlp_outputs(model: Model, forward: Callable[[], Result]) -> tuple[dict[int, Tensor], Result]:
    """Output of each MLP during one forward pass, and the result of the pass.

    Args:
        forward: Runs the model once.
    """
    outputs: dict[int, Tensor] = {}

    def keep(_: str, layer: int, value: Tensor) -> None:
        outputs[layer] = value.cpu()

    with read_hooks(model, [("mlp", layer) for layer in range(1, model.layers + 1)], keep):
        return outputs, forward()


@contextlib.contextmanager
def patched_mlps(model: Model, outputs: MlpOutputs) -> Iterator[None]:
    """Replace the outputs of the MLPs of some blocks in every forward pass, which must be of the same rows."""
    with contextlib.ExitStack() as hooks:
        for layer, value in outputs.items():
            hooks.enter_context(write_hooks(model, Site("mlp", layer), partial(_replace, value)))
        yield


def moved_as_far(
    own: Float[Tensor, "row token d"], other: Float[Tensor, "row token d"], generator: torch.Generator
) -> Float[Tensor, "row token d"]:
    """The own outputs, moved at each token as far as to the others in a random direction: the control of a patch."""
    noise = torch.randn(own.shape, generator=generator)
    moved: Tensor = own + noise * ((other - own).norm(dim=-1) / noise.norm(dim=-1))[..., None]
    return moved


def _replace(value: Float[Tensor, "row token d"], old: Float[Tensor, "row token d"]) -> Float[Tensor, "row token d"]:
    return value.to(old)
