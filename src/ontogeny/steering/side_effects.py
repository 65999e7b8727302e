"""Side effects of steering: cross-entropy and KL from the unsteered model on neutral text, and repetition."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.data.tokenization import encode_texts
from ontogeny.errors import BadInput
from ontogeny.models.forward import forward_padded
from ontogeny.models.model import Model
from ontogeny.steering.steer import Edits, as_edits, forward_steered


@dataclass(frozen=True, eq=False)
class TextSideEffects:
    """One number per text, nats per token."""

    before: Float[Tensor, " text"]
    """Cross-entropy of the unsteered model."""
    after: Float[Tensor, " text"]
    divergence: Float[Tensor, " text"]
    """KL of the steered from the unsteered next-token distribution, mean over the text's tokens."""


@torch.no_grad()
def measure_side_effects(model: Model, texts: Sequence[str], edits: Edits, *, batch: int = 16) -> TextSideEffects:
    """The cost of edits on neutral texts. Every token counts as generated, since it is teacher-forced.

    Raises:
        BadInput: a text of less than two tokens, or longer than the context; an edit with token masks.
    """
    if any(not isinstance(edit.where, str) for edit in as_edits(edits)):
        raise BadInput(
            "side effects on neutral text need edits of `all`, `prompt`, `generated` or `last` tokens, got masks: use a word."
        )
    ids = [encoding.ids for encoding in encode_texts(model.tokenizer, texts, [None] * len(texts))]
    if odd := [text for text, row in zip(texts, ids, strict=True) if not 2 <= len(row) <= model.context]:
        raise BadInput(
            f"a neutral text must have 2 to {model.context} tokens, {odd[0][:60]!r} has not: choose another."
        )
    plain = forward_padded(model, ids, batch=batch)
    steered = forward_steered(model, ids, edits, prompts=[1] * len(ids), batch=batch)
    effects: dict[int, tuple[float, float, float]] = {}
    for (rows, unedited), (_, edited) in zip(plain, steered, strict=True):
        scores = [output.logits.float().log_softmax(-1) for output in (unedited, edited)]
        for row, i in enumerate(rows):
            before, after = (score[row, : len(ids[i])] for score in scores)
            effects[i] = _text_side_effects(before, after, ids[i].to(before.device))
    columns = zip(*(effects[i] for i in range(len(ids))), strict=True)
    return TextSideEffects(*(torch.tensor(column, dtype=torch.float64) for column in columns))


def _text_side_effects(plain: Tensor, edited: Tensor, ids: Tensor) -> tuple[float, float, float]:
    following = ids[1:, None]
    before, after = (-scores[:-1].gather(1, following).double().mean() for scores in (plain, edited))
    divergence = (plain.exp() * (plain - edited)).double().sum(-1).mean()
    return float(before), float(after), float(divergence)


def distinct_n(texts: Sequence[Int[Tensor, " token"]], n: int = 2) -> float:
    """Distinct n-grams per n-gram of all texts (arXiv:1510.03055); NaN if no text has n tokens."""
    grams = [tuple(row[i : i + n].tolist()) for row in texts for i in range(len(row) - n + 1)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def alpha_at_equal_kl(
    cost: Callable[[float], float], target: float, *, largest: float = 1e4, tolerance: float = 0.01
) -> float:
    """The alpha whose cost is the target, to a relative `tolerance`; `cost(alpha)` must increase from 0, as a KL does.

    Raises:
        BadInput: a target that is not above 0, or one that no alpha up to `largest` reaches.
    """
    if not 0 < target < math.inf:
        raise BadInput(f"a cost to compare at is a number above 0, not {target}. Try 0.1 nats per token.")
    low, high = 0.0, 1.0
    while cost(high) < target:
        low, high = high, 2 * high
        if high > largest:
            raise BadInput(f"no alpha up to {largest:g} costs {target:g}. Compare at a smaller cost.")
    for _ in range(60):
        middle = (low + high) / 2
        value = cost(middle)
        if abs(value - target) <= tolerance * target:
            return middle
        low, high = (middle, high) if value < target else (low, middle)
    raise BadInput(f"the cost jumps over {target:g} near alpha {high:.4g}. Compare at another cost.")
