"""Stacks of sparse autoencoders of one shape: their parameters have a leading axis, and one product serves them all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.linalg.matmul import matmul
from ontogeny.sae.activation_functions import jump_relu, sparsemax, top_k
from ontogeny.sae.autoencoder import SparseAutoencoder, token_factor, unit_columns, unit_rows
from ontogeny.sae.settings import SaeSettings

_FIRST_THRESHOLD, _FIRST_TEMPERATURE = 0.1, 8.0
_LEAST_NORM = 1e-8
Parameters = Mapping[str, Tensor]


class _Product(torch.autograd.Function):
    """A product of two stacks and its derivatives, by the fast products of `linalg`."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return matmul(a.detach(), b.detach())

    @staticmethod
    def backward(ctx: Any, d_product: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = (saved.detach() for saved in ctx.saved_tensors)
        need_a, need_b = ctx.needs_input_grad
        return matmul(d_product, b.mT) if need_a else None, matmul(a.mT, d_product) if need_b else None


def _product(
    a: Float[Tensor, "member row inside"], b: Float[Tensor, "member inside column"]
) -> Float[Tensor, "member row column"]:
    product: Tensor = _Product.apply(a, b)
    return product


@dataclass(frozen=True, eq=False)
class SaeStack:
    """Autoencoders that differ in nothing but their seed, the weight of their penalty and their learning rate."""

    members: tuple[SaeSettings, ...]
    parameters: Parameters
    scale: float
    """Factor of the input; 1 but for `input_scale` = mean."""

    @property
    def kind(self) -> SaeSettings:
        return self.members[0]

    def scaled(self, x: Float[Tensor, "token d"]) -> Float[Tensor, "token d"]:
        """The input in the units of the training."""
        return x * token_factor(x) if self.kind.input_scale == "token" else x * self.scale

    def encode(self, x: Float[Tensor, "token d"]) -> tuple[Float[Tensor, "member token latent"], Tensor | None]:
        """Latents of scaled activations; and for jumprelu 1 where a latent fires."""
        p, kind = self.parameters, self.kind
        if kind.activation == "sparsemax":
            rows = x - p["decoder_bias"][:, None] if kind.centre_input else x.expand(len(self.members), -1, -1)
            norm = rows.norm(dim=-1, keepdim=True).clamp(min=_LEAST_NORM)
            cosines = _product(rows / norm, unit_columns(p["encoder"]))
            return norm * sparsemax(p["log_temperature"].exp()[:, None, None] * cosines), None
        bias = p["encoder_bias"][:, None]
        if kind.centre_input:
            # (x − b) W + c, without an activation for each member.
            bias = bias - p["decoder_bias"][:, None] @ p["encoder"]
        scores = _product(x.expand(len(self.members), -1, -1), p["encoder"]) + bias
        if kind.activation == "topk":
            return top_k(scores, kind.k), None
        if kind.activation == "jumprelu":
            return jump_relu(scores, p["log_threshold"].exp()[:, None])
        return scores.relu(), None

    def decode(self, latents: Float[Tensor, "member token latent"]) -> Float[Tensor, "member token d"]:
        """Scaled activations of latents."""
        return _product(latents, self.parameters["decoder"]) + self.parameters["decoder_bias"][:, None]

    def losses(self, x: Float[Tensor, "token d"]) -> Float[Tensor, " member"]:
        """Mean squared error of an entry, and the penalty: means over tokens, so neither depends on the batch."""
        latents, fires = self.encode(x)
        error = (self.decode(latents) - x).square().mean((-1, -2))
        weights = torch.tensor([member.penalty_weight for member in self.members], device=x.device)
        if not bool(weights.any()):
            return error
        if fires is not None:
            return error + weights * fires.sum(-1).mean(-1)
        if self.kind.activation == "sparsemax":
            # Squared distance to the atoms of a token, weighted by its latents (arXiv:2012.02134).
            far = latents * (x.square().sum(-1)[:, None] + self.parameters["decoder"].square().sum(-1)[:, None])
            near = 2 * latents * _product(x.expand(len(latents), -1, -1), self.parameters["decoder"].mT)
            return error + weights * (far - near).sum(-1).mean(-1) / x.shape[-1]
        lengths = self.parameters["decoder"].norm(dim=-1)[:, None]
        return error + weights * (latents * lengths).sum(-1).mean(-1) / x.shape[-1] ** 0.5

    @torch.no_grad()
    def normalise(self) -> None:
        """Give each direction of the decoder length 1, if so set."""
        if self.kind.unit_decoder and self.kind.activation != "sparsemax":
            decoder = self.parameters["decoder"]
            decoder.copy_(unit_rows(decoder))

    @torch.no_grad()
    def unstack(self) -> list[SparseAutoencoder]:
        """The autoencoders, in the units of the activations: latents and biases are divided by the input's factor."""
        p, kind = {name: value.detach() for name, value in self.parameters.items()}, self.kind
        found = []
        for i in range(len(self.members)):
            threshold = p["log_threshold"][i].exp() / self.scale if kind.activation == "jumprelu" else None
            temperature = float(p["log_temperature"][i].exp()) if kind.activation == "sparsemax" else 1.0
            found.append(
                SparseAutoencoder(
                    kind.activation,
                    p["encoder"][i].clone(),
                    p["encoder_bias"][i] / self.scale,
                    p["decoder"][i].clone(),
                    p["decoder_bias"][i] / self.scale,
                    threshold,
                    temperature,
                    kind.k if kind.activation == "topk" else 0,
                    kind.centre_input,
                    kind.input_scale == "token",
                )
            )
        return found


def shared_fields(settings: SaeSettings) -> SaeSettings:
    """The settings without what members of a stack may differ in."""
    return replace(settings, seed=0, penalty=None)


def make_stack(members: Sequence[SaeSettings], sample: Float[Tensor, "token d"]) -> SaeStack:
    """A stack of new autoencoders: random directions, their transpose as encoder, and the mean of a sample as bias."""
    kind, d = members[0], sample.shape[1]
    scale = 1.0
    if kind.input_scale == "mean":
        scale = float((d / sample.square().sum(1).mean().clamp(min=_LEAST_NORM)).sqrt())
    empty = SaeStack(tuple(members), {}, scale)
    rows = empty.scaled(sample)
    mean = rows.mean(0) if kind.centre_input else torch.zeros_like(rows[0])
    decoders = []
    for member in members:
        draw = torch.Generator().manual_seed(member.seed)
        if kind.activation == "sparsemax":
            # A token is a mean of atoms, so that atoms begin at tokens.
            chosen = torch.randint(len(rows), (member.latents,), generator=draw).to(rows.device)
            atoms = rows[chosen] - mean
            noise = 0.1 * torch.randn(member.latents, d, generator=draw).to(rows)
            decoders.append(unit_rows(unit_rows(atoms) + noise / d**0.5))
        else:
            decoders.append(unit_rows(torch.randn(member.latents, d, generator=draw).to(rows)))
    decoder, count = torch.stack(decoders), len(members)
    parameters = {
        "encoder": decoder.mT.contiguous(),
        "encoder_bias": rows.new_zeros(count, kind.latents),
        "decoder": decoder,
        "decoder_bias": mean.expand(count, -1).contiguous(),
    }
    if kind.activation == "jumprelu":
        parameters["log_threshold"] = rows.new_full((count, kind.latents), _FIRST_THRESHOLD).log()
    if kind.activation == "sparsemax":
        parameters["log_temperature"] = rows.new_full((count,), _FIRST_TEMPERATURE).log()
    trained = {name: value.requires_grad_() for name, value in parameters.items()}
    return SaeStack(tuple(members), trained, scale)
