"""A trained sparse autoencoder: encode activations into latents, and decode them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.linalg.matmul import matmul
from ontogeny.sae.activation_functions import jump_relu, sparsemax, top_k
from ontogeny.sae.settings import SAE_ACTIVATIONS

_LEAST_NORM = 1e-8


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """Latents `z = f(x W + c)` and reconstruction `z D + b`, in the units of the activations."""

    activation: str
    encoder: Float[Tensor, "d latent"]
    encoder_bias: Float[Tensor, " latent"]
    decoder: Float[Tensor, "latent d"]
    """Row i is the direction of latent i."""
    decoder_bias: Float[Tensor, " d"]
    threshold: Float[Tensor, " latent"] | None = None
    """Of jumprelu."""
    temperature: float = 1.0
    """Factor of the cosines in sparsemax."""
    k: int = 0
    """Of topk."""
    centre_input: bool = True
    """Whether the decoder bias is subtracted from the input."""
    token_scale: bool = False
    """Whether each token is scaled to length √d, and its reconstruction back."""

    def __post_init__(self) -> None:
        d, latents = self.encoder.shape
        shapes = {"encoder_bias": (latents,), "decoder": (latents, d), "decoder_bias": (d,)}
        if self.threshold is not None:
            shapes["threshold"] = (latents,)
        for name, shape in shapes.items():
            if (own := tuple(getattr(self, name).shape)) != shape:
                raise BadInput(f"`{name}` must have shape {shape} for an encoder of {d} × {latents}, got {own}.")
        if (self.activation == "jumprelu") != (self.threshold is not None) or self.activation not in SAE_ACTIVATIONS:
            raise BadInput(
                f"a threshold belongs to jumprelu, got {self.activation}: leave `threshold` out, or give it."
            )

    @property
    def latents(self) -> int:
        return self.encoder.shape[1]

    @property
    def width(self) -> int:
        """Width of the activations."""
        return self.encoder.shape[0]

    def encode(self, x: Float[Tensor, "*token d"]) -> Float[Tensor, "*token latent"]:
        """Latents of activations.

        Raises:
            BadInput: activations of another width.
        """
        if x.shape[-1] != self.width:
            raise BadInput(
                f"activations must be {self.width} wide, as the autoencoder, got {x.shape[-1]}: read the site that it was trained on."
            )
        rows = x.reshape(-1, self.width).to(self.encoder)
        rows = rows * token_factor(rows) if self.token_scale else rows
        if self.centre_input:
            rows = rows - self.decoder_bias
        if self.activation == "sparsemax":
            return self._simplex(rows).view(*x.shape[:-1], -1)
        scores = matmul(rows, self.encoder) + self.encoder_bias
        if self.activation == "topk":
            latents = top_k(scores, self.k)
        elif self.threshold is not None:
            latents = jump_relu(scores, self.threshold)[0]
        else:
            latents = scores.relu()
        return latents.view(*x.shape[:-1], -1)

    def _simplex(self, rows: Float[Tensor, "token d"]) -> Float[Tensor, "token latent"]:
        norm = rows.norm(dim=-1, keepdim=True).clamp(min=_LEAST_NORM)
        scores = self.temperature * matmul(rows / norm, unit_columns(self.encoder))
        return norm * sparsemax(scores)

    def decode(
        self, latents: Float[Tensor, "*token latent"], x: Float[Tensor, "*token d"] | None = None
    ) -> Float[Tensor, "*token d"]:
        """Activations of latents.

        Args:
            x: The activations that they come from, whose lengths a `token_scale` needs.
        """
        rows = matmul(latents.reshape(-1, self.latents), self.decoder) + self.decoder_bias
        values = rows.view(*latents.shape[:-1], -1)
        if not self.token_scale:
            return values
        if x is None:
            raise BadInput("`x` must be given to decode latents of scaled tokens, got None: give their activations.")
        return values / token_factor(x.to(values))

    def reconstruct(self, x: Float[Tensor, "*token d"]) -> Float[Tensor, "*token d"]:
        """`decode(encode(x))`, in the dtype of x."""
        return self.decode(self.encode(x), x).to(x)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, for a file."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value.contiguous() for name, value in values.items() if isinstance(value, Tensor)}

    def facts(self) -> dict[str, Any]:
        """All other fields by name, for a header."""
        return {f.name: value for f in fields(self) if not isinstance(value := getattr(self, f.name), Tensor | None)}

    @classmethod
    def of(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """From the parts that `facts` and `tensors` give."""
        fields_of: dict[str, Any] = {**facts, **tensors}
        return cls(**fields_of)

    def to(self, like: Tensor) -> Self:
        """A copy on the device of a tensor."""
        moved: dict[str, Any] = {name: value.to(like.device) for name, value in self.tensors().items()}
        return replace(self, **moved)


def token_factor(x: Float[Tensor, "*token d"]) -> Float[Tensor, "*token 1"]:
    """Factor that scales each token to length √d."""
    return x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True).clamp(min=_LEAST_NORM)


def unit_columns(matrix: Float[Tensor, "*stack d latent"]) -> Float[Tensor, "*stack d latent"]:
    """The matrix with columns of length 1."""
    return matrix / matrix.norm(dim=-2, keepdim=True).clamp(min=_LEAST_NORM)


def unit_rows(matrix: Float[Tensor, "*stack latent d"]) -> Float[Tensor, "*stack latent d"]:
    """The matrix with rows of length 1."""
    return matrix / matrix.norm(dim=-1, keepdim=True).clamp(min=_LEAST_NORM)


def check_finite(autoencoder: SparseAutoencoder) -> None:
    """Raise BadInput if a weight is not finite."""
    for name, value in autoencoder.tensors().items():
        if not bool(torch.isfinite(value).all()):
            raise BadInput(
                f"`{name}` of the autoencoder must be finite, got NaN or infinity: it diverged; train it again."
            )
