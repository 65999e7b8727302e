"""Rows of the embedding and the unembedding of a model.

The gain of the final norm is folded into the unembedding, since the two only act together.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from ontogeny.neurons.entropy_neurons import final_norm

EmbeddingSpace = Literal["embedding", "unembedding"]
EMBEDDING_SPACES: tuple[EmbeddingSpace, ...] = ("embedding", "unembedding")


def embedding_rows(model: Model, ids: Int[Tensor, " token"]) -> Float[Tensor, "token d"]:
    """Rows of the input embedding, float32 on the CPU."""
    return _rows(model.network.get_input_embeddings().weight, ids, "embedding", model.name)


@torch.no_grad()
def unembedding_rows(model: Model, ids: Int[Tensor, " token"]) -> Float[Tensor, "token d"]:
    """Rows of the unembedding behind the final norm's gain, and about their mean over dimensions where the norm subtracts it.

    Raises:
        BadInput: the model has no unembedding.
    """
    head = model.network.get_output_embeddings()
    if head is None:
        raise BadInput(f"the model must be causal to have an unembedding, got {model.name}: read its embedding.")
    rows = _rows(head.weight, ids, "unembedding", model.name)
    return final_norm(model).straight(rows.double()).float() if model.architecture.final_norm else rows


def is_tied(model: Model) -> bool:
    """Whether the unembedding is the embedding."""
    head = model.network.get_output_embeddings()
    return head is not None and head.weight is model.network.get_input_embeddings().weight


def _rows(weight: Tensor, ids: Int[Tensor, " token"], name: str, model: str) -> Tensor:
    if int(ids.max()) >= len(weight):
        raise BadInput(
            f"the {name} of {model} must have a row for each token, got {len(weight):,} rows and the id {int(ids.max())}: use the "
            "tokenizer of the model."
        )
    return weight.detach()[ids.to(weight.device)].float().cpu()
