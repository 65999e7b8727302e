"""Cross-entropy losses: language modelling and supervised fine-tuning."""

from jaxtyping import Float
from torch import Tensor, nn

from ontogeny.errors import BadInput
from ontogeny.training.batches import TokenBatch
from ontogeny.training.objectives.log_probs import mean_loss


def language_model(network: nn.Module, batch: TokenBatch, reference: nn.Module | None = None, /) -> Float[Tensor, ""]:
    """Mean cross-entropy of the next token, without padding."""
    return mean_loss(network, batch, batch.real)


def answers_only(network: nn.Module, batch: TokenBatch, reference: nn.Module | None = None, /) -> Float[Tensor, ""]:
    """Mean cross-entropy of the answers' tokens: supervised fine-tuning."""
    if batch.mask is None:
        raise BadInput("answers_only needs a mask of the answers' tokens: make the batch with pad_batch.")
    return mean_loss(network, batch, batch.mask)
