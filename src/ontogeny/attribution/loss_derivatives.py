"""Gradient and curvature of a loss at a flat parameter vector, by double backpropagation.

Second derivatives need float32 or float64 and the math kernel of attention: in bfloat16 and with fused kernels they are silently wrong.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from ontogeny.attribution.optimizer_steps import Vector
from ontogeny.errors import BadInput

Loss = Callable[[nn.Module, Any], Tensor]
"""`(network, batch) -> scalar`; the network is called, not changed."""


@dataclass(frozen=True)
class FlatNetwork:
    """A network whose trainable parameters are one vector.

    Raises:
        BadInput: the network has dropout or running statistics, or parameters of half precision.
    """

    network: nn.Module

    def __post_init__(self) -> None:
        for name, module in self.network.named_modules():
            if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 and module.training:
                raise BadInput(
                    f"the network must have no dropout, got {module.p} in {name}: set it to 0 and train again."
                )
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                raise BadInput(f"the network must have no running statistics, got {type(module).__name__} in {name}.")
        if low := {str(p.dtype) for p in self.parameters.values() if p.dtype not in (torch.float32, torch.float64)}:
            raise BadInput(
                f"second derivatives need float32 or float64, got {', '.join(low)}: load the model in float32."
            )

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name."""
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    def vector(self) -> Vector:
        """A copy of the parameters."""
        return torch.cat([p.detach().flatten() for p in self.parameters.values()])

    def split(self, vector: Vector) -> dict[str, Tensor]:
        """A vector as tensors by name."""
        parts = torch.split(vector, [p.numel() for p in self.parameters.values()])
        return {name: part.view_as(p) for (name, p), part in zip(self.parameters.items(), parts, strict=True)}

    @torch.no_grad()
    def load(self, vector: Vector) -> None:
        """Set the parameters of the network."""
        for name, value in self.split(vector).items():
            self.parameters[name].copy_(value)

    def decay(self, value: float) -> Vector:
        """Weight decay of each parameter: matrices decay, gains and biases do not."""
        parts = [torch.full((p.numel(),), value if p.ndim >= 2 else 0.0) for p in self.parameters.values()]
        return torch.cat(parts).to(self.vector())

    def loss(self, vector: Vector, loss: Loss, batch: Any) -> Tensor:
        """The loss at a vector, differentiable in it."""
        return loss(_Called(self.network, self.split(vector)), batch)

    def gradient(self, vector: Vector, loss: Loss, batch: Any) -> Vector:
        """Gradient of the loss at a vector."""
        at = vector.detach().requires_grad_(True)
        with math_attention():
            (gradient,) = torch.autograd.grad(self.loss(at, loss, batch), at)
        return gradient.detach()

    def hessian_product(self, vector: Vector, loss: Loss, batch: Any, direction: Vector) -> Vector:
        """Product of the loss's Hessian at a vector with a direction."""
        at = vector.detach().requires_grad_(True)
        with math_attention():
            (gradient,) = torch.autograd.grad(self.loss(at, loss, batch), at, create_graph=True)
            if not gradient.requires_grad:
                return torch.zeros_like(vector)
            (product,) = torch.autograd.grad(gradient @ direction.detach(), at)
        return product.detach()

    def gauss_newton_product(self, vector: Vector, loss: Loss, batch: Any, direction: Vector) -> Vector:
        """Product of the loss's Gauss–Newton matrix at a vector with a direction: Jᵀ H J, where J is the derivative of the network's
        outputs (or logits) and H the Hessian of the loss by them. It has no negative eigenvalue where the loss is convex in the outputs.
        """
        at, cut = vector.detach().requires_grad_(True), list[tuple[Tensor, Tensor]]()
        with math_attention():
            value = loss(_Called(self.network, self.split(at), cut), batch)
            outputs, leaves = [output for output, _ in cut], [leaf for _, leaf in cut]
            # J·direction by differentiating the transposed product, which is linear in its cotangents.
            cotangents = [torch.zeros_like(output, requires_grad=True) for output in outputs]
            (back,) = torch.autograd.grad(outputs, at, cotangents, create_graph=True)
            moves = torch.autograd.grad(back, cotangents, direction.detach())
            slopes = torch.autograd.grad(value, leaves, create_graph=True)
            bent = sum((slope * move).sum() for slope, move in zip(slopes, moves, strict=True))
            if not isinstance(bent, Tensor) or not bent.requires_grad:
                return torch.zeros_like(vector)
            (product,) = torch.autograd.grad(outputs, at, torch.autograd.grad(bent, leaves))
        return product.detach()


class _Called(nn.Module):
    """A network that is called with given parameters.

    Args:
        cut: If given, each output is appended as a pair: the output, and the leaf that the caller receives in its place.
    """

    def __init__(
        self, network: nn.Module, parameters: dict[str, Tensor], cut: list[tuple[Tensor, Tensor]] | None = None
    ) -> None:
        super().__init__()
        # Not registered: these are tensors of the graph, and the network keeps its own parameters.
        object.__setattr__(self, "wrapped", network)
        object.__setattr__(self, "values", parameters)
        object.__setattr__(self, "cut", cut)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        outputs = functional_call(self.wrapped, self.values, args, kwargs)
        if self.cut is None:
            return outputs
        output = outputs if isinstance(outputs, Tensor) else outputs.logits
        leaf = output.detach().requires_grad_(True)
        self.cut.append((output, leaf))
        if isinstance(outputs, Tensor):
            return leaf
        outputs.logits = leaf
        return outputs

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.wrapped, name)


@contextlib.contextmanager
def math_attention() -> Iterator[None]:
    """Only the attention kernel that has a second derivative."""
    with sdpa_kernel([SDPBackend.MATH]):
        yield
