"""A lens: an affine map from the residual stream of each layer to that of the last one, and the logits that follow."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.models.model import Model, next_token_logits

LensKind = Literal["logit", "tuned", "jacobian"]
LENS_KINDS: tuple[LensKind, ...] = ("logit", "tuned", "jacobian")


@dataclass(frozen=True, eq=False)
class Lens:
    """Maps of the layers 0 to L; that of layer L is the identity. Rows are states: `h @ maps[l] + shifts[l]`."""

    kind: LensKind
    maps: Float[Tensor, "layer d d"] | None = None
    """None for the logit lens."""
    shifts: Float[Tensor, "layer d"] | None = None

    def to_last_layer(self, layer: int, stream: Float[Tensor, "*row d"]) -> Float[Tensor, "*row d"]:
        """The state of layer `layer` in the coordinates of the last one."""
        if self.maps is None or self.shifts is None:
            return stream
        return stream @ self.maps[layer].to(stream) + self.shifts[layer].to(stream)


def logit_lens() -> Lens:
    """The lens that maps nothing."""
    return Lens("logit")


def lens_logits(
    model: Model, stream: Float[Tensor, "*row d"], layer: int, lens: Lens | None = None
) -> Float[Tensor, "*row v"]:
    """Next-token logits that a lens reads from `resid.layer`, by the model's own final norm and unembedding.

    Args:
        stream: States of the residual stream after block `layer`, before the final norm.
        lens: By default the logit lens.

    Raises:
        BadInput: the model is not causal, or there is no such layer.
    """
    check_lens_model(model)
    if not 0 <= layer <= model.layers:
        raise BadInput(f"`layer` must lie between 0 and {model.layers}, got {layer}: choose another one.")
    last = (lens or logit_lens()).to_last_layer(layer, stream)
    return next_token_logits(model, normalise_last(model, last))


def normalise_last(model: Model, stream: Float[Tensor, "*row d"]) -> Float[Tensor, "*row d"]:
    """The model's final norm of states of its last layer."""
    path = model.architecture.final_norm
    normed: Tensor = model.network.get_submodule(path)(stream) if path else stream
    return normed


def check_lens_model(model: Model) -> None:
    """Raise BadInput if the output of the last block does not give the next token by the final norm and the unembedding alone."""
    kind = model.network.config.model_type
    head = model.network.get_output_embeddings() if model.architecture.causal else None
    if head is None:
        raise BadInput(f"a lens needs a causal language model, got {kind}: choose another model.")
    if (width := torch.as_tensor(head.weight).shape[-1]) != model.d:
        raise BadInput(
            f"a lens needs an unembedding of the width {model.d} of the stream, got {width} in {kind}: choose another model."
        )
