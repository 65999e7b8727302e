"""Other ways to corrupt a run or to judge a cell: noised embeddings (arXiv:2202.05262) and random vectors as the control."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.lab.patching import Cost, Questions, Standing, Start, stand
from ontogeny.model import Model


def noised(
    model: Model,
    asked: Questions,
    start: Start,
    where: Bool[Tensor, "row token"],
    sigma: float,
    cost: Cost,
    *,
    seed: int,
) -> Standing:
    """The prompts with Gaussian noise of this spread on the embeddings of some tokens: what restores them is then looked for."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(*where.shape, model.d, generator=generator) * sigma * where[..., None]
    tokens = where.shape[1]

    def add(h: Tensor) -> Tensor:
        h = h.clone()
        h[:, -tokens:] += drawn.to(h)
        return h

    return stand(model, asked, start, cost, edit=add)


def random_like(change: Float[Tensor, "layer row token d"], *, seed: int) -> Float[Tensor, "layer row token d"]:
    """Vectors of random direction, each as long as the change in whose place it stands."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(change.shape, generator=generator).to(change)
    return drawn * (change.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True))
