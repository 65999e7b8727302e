"""Batches of a training step, as frozen tensors. Rows are padded on the right; padding never counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.errors import BadInput


@dataclass(frozen=True)
class TokenBatch:
    """Rows of token ids."""

    ids: Int[Tensor, "row token"]
    mask: Bool[Tensor, "row token"] | None = None
    """True at the tokens of answers, which `answers_only`, `Preference` and `Unlearn` use; None if there are no answers."""
    real: Bool[Tensor, "row token"] | None = None
    """False at padding; None if there is no padding."""
    indices: Int[Tensor, " row"] | None = None
    """Indices of the examples in the data set, for the recording."""

    @property
    def tokens(self) -> int:
        return self.ids.numel() if self.real is None else int(self.real.sum())


@dataclass(frozen=True)
class PreferenceBatch:
    """Two answers to each prompt; the rows of both include the prompt."""

    chosen: TokenBatch
    rejected: TokenBatch
    reference: Float[Tensor, "side row"] | None = None
    """Log-probabilities of the chosen and the rejected answers under the reference model; None to compute them."""
    indices: Int[Tensor, " row"] | None = None

    @property
    def tokens(self) -> int:
        return self.chosen.tokens + self.rejected.tokens


@dataclass(frozen=True)
class UnlearningBatch:
    """Texts to unlearn and texts to retain; their masks select the tokens that count (all, without a mask)."""

    forget: TokenBatch
    retain: TokenBatch
    indices: Int[Tensor, " row"] | None = None

    @property
    def tokens(self) -> int:
        return self.forget.tokens + self.retain.tokens


@dataclass(frozen=True)
class PromptBatch:
    """Prompts that the model continues; `real` of `prompts` marks where each ends."""

    prompts: TokenBatch
    indices: Int[Tensor, " row"] | None = None

    @property
    def tokens(self) -> int:
        return self.prompts.tokens


TrainingBatch = TokenBatch | PreferenceBatch | UnlearningBatch | PromptBatch


def pad_batch(rows: Sequence[Sequence[int]], answers: Sequence[int] | None = None, *, filler: int = 0) -> TokenBatch:
    """Pad rows to one batch; `answers` is the place of each row's first answer token.

    Raises:
        BadInput: no rows, or an answer that begins outside its row.
    """
    if not rows or not all(rows):
        raise BadInput("a batch needs at least one row, and each row at least one token: check the prompts.")
    lengths = torch.tensor([len(row) for row in rows])
    places = torch.arange(int(lengths.max()))
    real = places < lengths[:, None]
    ids = torch.full(real.shape, filler)
    ids[real] = torch.tensor([token for row in rows for token in row])
    if answers is None:
        return TokenBatch(ids, None, None if bool(real.all()) else real)
    starts = torch.tensor(list(answers))
    if starts.shape != lengths.shape or bool(((starts < 1) | (starts >= lengths)).any()):
        raise BadInput(
            "each answer must begin inside its row, after at least one token of the prompt, got "
            f"answers at {starts.tolist()[:4]} in rows of {lengths.tolist()[:4]} tokens."
        )
    return TokenBatch(ids, real & (places >= starts[:, None]), None if bool(real.all()) else real)


def concatenate_batches(first: TokenBatch, second: TokenBatch) -> TokenBatch:
    """The rows of both in one batch; the narrower one is padded."""
    width = max(first.ids.shape[1], second.ids.shape[1])
    parts = zip(_pad_to_width(first, width), _pad_to_width(second, width), strict=True)
    return TokenBatch(*map(torch.cat, parts))


def _pad_to_width(tokens: TokenBatch, width: int) -> tuple[Tensor, Tensor, Tensor]:
    padding = (0, width - tokens.ids.shape[1])
    real = torch.ones_like(tokens.ids, dtype=torch.bool) if tokens.real is None else tokens.real
    mask = real if tokens.mask is None else tokens.mask
    return tuple(torch.nn.functional.pad(part, padding) for part in (tokens.ids, mask, real))  # type: ignore[return-value]


def count_batch_tokens(batch: Any) -> int:
    """Number of tokens in a batch; 0 if it is not text."""
    return int(getattr(batch, "tokens", 0))


def example_indices(batch: Any) -> list[int] | None:
    """Indices of a batch's examples in the data set; None if unknown."""
    indices = getattr(batch, "indices", None)
    return indices.tolist() if isinstance(indices, Tensor) else None


def batch_tensors(batch: Any) -> list[Tensor]:
    """All tensors of a batch (a dataclass, tuple, dictionary or tensor), in order."""
    if isinstance(batch, Tensor):
        return [batch]
    if isinstance(batch, dict):
        parts = [batch[key] for key in sorted(batch)]
    elif isinstance(batch, list | tuple):
        parts = list(batch)
    else:
        parts = list(vars(batch).values()) if hasattr(batch, "__dict__") else []
    return [tensor for part in parts for tensor in batch_tensors(part)]
