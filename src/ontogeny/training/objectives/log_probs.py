"""Log-probabilities of tokens and answers, and the parts that the objectives share."""

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ontogeny.errors import BadInput
from ontogeny.training.batches import TokenBatch


def token_log_probs(network: nn.Module, batch: TokenBatch) -> Float[Tensor, "row token"]:
    """Log-probability of each token after the first of a row, given the previous ones."""
    logits = network(batch.ids, use_cache=False).logits[:, :-1].float()
    return -cross_entropy(logits.transpose(1, 2), batch.ids[:, 1:], reduction="none")


def answer_log_probs(network: nn.Module, batch: TokenBatch) -> Float[Tensor, " row"]:
    """Log-probability of each row's answer: the sum over its tokens."""
    log_probs, mask = token_log_probs(network, batch), loss_mask(batch)
    return log_probs.sum(-1) if mask is None else (log_probs * mask[:, 1:]).sum(-1)


def mean_loss(network: nn.Module, batch: TokenBatch, mask: Bool[Tensor, "row token"] | None) -> Float[Tensor, ""]:
    logits, targets = network(batch.ids, use_cache=False).logits[:, :-1], batch.ids[:, 1:]
    if mask is None:
        return cross_entropy(logits.flatten(0, 1), targets.flatten())
    # The mean over all tokens, not per row first, so that padding does not change the weights.
    return cross_entropy(logits[mask[:, 1:]], targets[mask[:, 1:]])


def loss_mask(batch: TokenBatch) -> Bool[Tensor, "row token"] | None:
    return batch.real if batch.mask is None else batch.mask


def require_reference(reference: nn.Module | None) -> nn.Module:
    if reference is None:
        raise BadInput("the objective needs a reference model: set `reference` to the stage's initial model.")
    return reference
