"""A toy of superposition: tied autoencoders of sparse features, some of which are rare (arXiv:2209.10652, arXiv:2505.04741)."""

import torch
from jaxtyping import Float
from torch import Tensor


def autoencoder_directions(
    probabilities: Float[Tensor, "model feature"],
    d: int,
    *,
    steps: int,
    seed: int,
    linear: bool = False,
    batch: int = 128,
    rate: float = 1e-2,
) -> Float[Tensor, "model feature d"]:
    """Directions of the features in trained autoencoders x → f(WᵀW x + b) with `d` hidden units; all models train at once.

    A feature is on with its probability and then uniform in [0, 1], or in [-1, 1] in a linear model, whose f is the identity and whose
    b is 0: its best W spans the `d` most frequent features.
    """
    models, features = probabilities.shape
    random = torch.Generator().manual_seed(seed)
    # One start and one stream of inputs for all models, so that only their frequencies differ.
    start = torch.randn(1, features, d, generator=random) / d**0.5
    w = start.repeat(models, 1, 1).requires_grad_()
    b = torch.zeros(models, 1, features, requires_grad=True)
    optimiser = torch.optim.Adam([w] if linear else [w, b], lr=rate)
    for _ in range(steps):
        on, value = torch.rand(2, batch, features, generator=random)
        x = torch.where(on < probabilities[:, None], 2 * value - 1 if linear else value, 0.0)
        output = x @ w @ w.mT
        error = output - x if linear else torch.relu(output + b) - x
        loss = error.square().sum((0, 2)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return w.detach()
