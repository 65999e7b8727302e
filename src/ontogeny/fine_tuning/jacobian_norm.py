"""Jacobian norm: how much the next token's logits react to the input embeddings (arXiv:2407.10264), by random projections.

The mean squared norm of Jᵀu over Gaussian u is the squared Frobenius norm of J (Hutchinson 1990); each u takes one backward pass.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ontogeny.models.model import Model


def jacobian_norms(
    model: Model, ids: Sequence[Int[Tensor, " token"]], *, probes: int = 8, seed: int = 0, batch: int = 16
) -> Float[Tensor, " prompt"]:
    """Frobenius norm of the derivative of the logits after each prompt with respect to the embeddings of its tokens.

    Logits are centred over the vocabulary, since a shift of all changes no probability.

    Args:
        probes: Random projections; as many as the vocabulary or more give the exact norm.
        seed: Of the projections, which are the same for all prompts, and for models of one vocabulary.
    """
    words = model.network.get_output_embeddings().weight.shape[0]
    exact = probes >= words
    generator = torch.Generator().manual_seed(seed)
    directions = torch.eye(words) if exact else torch.randn(probes, words, generator=generator)
    directions = (directions - directions.mean(1, keepdim=True)).to(model.device)
    scale = 1.0 if exact else 1 / probes
    embed = model.network.get_input_embeddings()
    norms = torch.empty(len(ids), dtype=torch.float64)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for first in range(0, len(order), batch):
        rows = order[first : first + batch]
        padded = pad_sequence([ids[i] for i in rows], batch_first=True).to(model.device)
        real = pad_sequence([torch.ones_like(ids[i]) for i in rows], batch_first=True).to(model.device)
        with torch.enable_grad():
            embedded = embed(padded).detach().requires_grad_(True)
            output = model.network(inputs_embeds=embedded, attention_mask=real, use_cache=False)
            last = output.logits[torch.arange(len(rows)), real.sum(1) - 1].float()
            squares = torch.zeros(len(rows), dtype=torch.float64, device=model.device)
            for direction in directions:
                # A row of a batch does not depend on another one, so that the sum has the gradient of each.
                (gradient,) = torch.autograd.grad((last @ direction).sum(), embedded, retain_graph=True)
                squares += gradient.double().square().sum((1, 2))
        norms[rows] = (scale * squares).sqrt().cpu()
    return norms
