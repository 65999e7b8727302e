"""What steering costs: cross-entropy on neutral text, divergence from the unsteered model, and how much is said twice."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.data.tokenization import encode_texts
from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from ontogeny.steering.steer import Edits, as_edits, steer


@dataclass(frozen=True, eq=False)
class TextSideEffects:
    """One number a text, nats per token."""

    before: Float[Tensor, " text"]
    """Cross-entropy of the unsteered model."""
    after: Float[Tensor, " text"]
    divergence: Float[Tensor, " text"]
    """KL of the steered from the unsteered next-token distribution, mean over the text's tokens."""


@torch.no_grad()
def measure_side_effects(model: Model, texts: Sequence[str], edits: Edits, *, batch: int = 16) -> TextSideEffects:
    """The cost of an edit on texts that have nothing to do with it. Every token counts as generated: it is teacher-forced.

    Raises:
        BadInput: a text of less than two tokens, or longer than the context; an edit with masks of its own.
    """
    if any(not isinstance(edit.where, str) for edit in as_edits(edits)):
        raise BadInput(
            "the cost on neutral text needs edits whose tokens are told by a word, not by masks. Use all or generated."
        )
    ids = [encoding.ids for encoding in encode_texts(model.tokenizer, texts, [None] * len(texts))]
    if odd := [text for text, row in zip(texts, ids, strict=True) if not 2 <= len(row) <= model.context]:
        raise BadInput(f"a neutral text needs 2 to {model.context} tokens: {odd[0][:60]!r} has not. Choose another.")
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    found: dict[int, tuple[float, float, float]] = {}
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        found.update(zip(rows, _side_effects(model, [ids[i] for i in rows], edits), strict=True))
    columns = zip(*(found[i] for i in range(len(ids))), strict=True)
    return TextSideEffects(*(torch.tensor(column, dtype=torch.float64) for column in columns))


def _side_effects(
    model: Model, rows: Sequence[Int[Tensor, " token"]], edits: Edits
) -> list[tuple[float, float, float]]:
    ids = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True).to(model.device)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(model.device)
    plain = model.network(input_ids=ids, attention_mask=mask, use_cache=False).logits.float().log_softmax(-1)
    with steer(model, edits, prompts=[1] * len(rows)):
        edited = model.network(input_ids=ids, attention_mask=mask, use_cache=False).logits.float().log_softmax(-1)
    return [
        _text_side_effects(plain[i, : len(row)], edited[i, : len(row)], ids[i, : len(row)])
        for i, row in enumerate(rows)
    ]


def _text_side_effects(plain: Tensor, edited: Tensor, ids: Tensor) -> tuple[float, float, float]:
    following = ids[1:, None]
    before, after = (-scores[:-1].gather(1, following).double().mean() for scores in (plain, edited))
    divergence = (plain.exp() * (plain - edited)).double().sum(-1).mean()
    return float(before), float(after), float(divergence)


def distinct_n(texts: Sequence[Int[Tensor, " token"]], n: int = 2) -> float:
    """Share of different n-grams among all that were said (arXiv:1510.03055); NaN where no text has n tokens."""
    said = [tuple(row[i : i + n].tolist()) for row in texts for i in range(len(row) - n + 1)]
    return len(set(said)) / len(said) if said else float("nan")


def alpha_at_equal_kl(
    cost: Callable[[float], float], target: float, *, largest: float = 1e4, tolerance: float = 0.01
) -> float:
    """The alpha whose cost is the target, to a share of `tolerance` of it; `cost(alpha)` grows from 0, as a divergence does.

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
        found = cost(middle)
        if abs(found - target) <= tolerance * target:
            return middle
        low, high = (middle, high) if found < target else (low, middle)
    raise BadInput(f"the cost jumps over {target:g} near alpha {high:.4g}. Compare at another cost.")
