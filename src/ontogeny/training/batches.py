"""What a training step is given: frozen tensors. Rows are padded on the right, and what is padding never counts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    """The tokens of the answers: what `answers_only`, `preference` and `unlearn` look at; None where there are none."""
    real: Bool[Tensor, "row token"] | None = None
    """False at padding; None where there is none."""
    indices: Int[Tensor, " row"] | None = None
    """Which examples of the data set the rows are, for the record."""

    @property
    def tokens(self) -> int:
        return self.ids.numel() if self.real is None else int(self.real.sum())


@dataclass(frozen=True)
class PreferenceBatch:
    """Two answers to each prompt, the prompt included in both."""

    chosen: TokenBatch
    rejected: TokenBatch
    reference: Float[Tensor, "side row"] | None = None
    """Log-probabilities of the chosen and the rejected answers under the reference model, where they are known."""
    indices: Int[Tensor, " row"] | None = None

    @property
    def tokens(self) -> int:
        return self.chosen.tokens + self.rejected.tokens


@dataclass(frozen=True)
class UnlearningBatch:
    """What is to be unlearned, and what must stay; their masks say which tokens count (all, without one)."""

    forget: TokenBatch
    retain: TokenBatch
    indices: Int[Tensor, " row"] | None = None

    @property
    def tokens(self) -> int:
        return self.forget.tokens + self.retain.tokens


@dataclass(frozen=True)
class PromptBatch:
    """Texts that the model itself goes on with; `real` of `prompts` tells where each ends."""

    prompts: TokenBatch
    indices: Int[Tensor, " row"] | None = None

    @property
    def tokens(self) -> int:
        return self.prompts.tokens


TrainingBatch = TokenBatch | PreferenceBatch | UnlearningBatch | PromptBatch


def pad_batch(rows: Sequence[Sequence[int]], answers: Sequence[int] | None = None, *, filler: int = 0) -> TokenBatch:
    """Rows of any lengths as one batch; `answers` gives the place of each row's first answer token.

    Raises:
        BadInput: no rows, or an answer that begins outside its row.
    """
    if not rows or not all(rows):
        raise BadInput("a batch needs rows of at least one token each, and was given none. Check the prompts.")
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
            "each answer must begin inside its row, after at least one token of the prompt; "
            f"rows of {lengths.tolist()[:4]} tokens, answers from {starts.tolist()[:4]}."
        )
    return TokenBatch(ids, real & (places >= starts[:, None]), None if bool(real.all()) else real)


def concatenate_batches(one: TokenBatch, other: TokenBatch) -> TokenBatch:
    """The rows of both in one batch, the shorter ones padded."""
    width = max(one.ids.shape[1], other.ids.shape[1])
    first, second = _pad_to_width(one, width), _pad_to_width(other, width)
    return TokenBatch(*(torch.cat(sides) for sides in zip(first, second, strict=True)))


def _pad_to_width(tokens: TokenBatch, width: int) -> tuple[Tensor, Tensor, Tensor]:
    more = (0, width - tokens.ids.shape[1])
    real = torch.ones_like(tokens.ids, dtype=torch.bool) if tokens.real is None else tokens.real
    mask = real if tokens.mask is None else tokens.mask
    return tuple(torch.nn.functional.pad(part, more) for part in (tokens.ids, mask, real))  # type: ignore[return-value]


def count_batch_tokens(batch: Any) -> int:
    """Tokens of a batch; 0 where it is no text."""
    return int(getattr(batch, "tokens", 0))


def example_indices(batch: Any) -> list[int] | None:
    """Which examples of a data set a batch holds, where it tells."""
    indices = getattr(batch, "indices", None)
    return indices.tolist() if isinstance(indices, Tensor) else None


def batch_tensors(batch: Any) -> list[Tensor]:
    """All tensors of a batch (a dataclass, a tuple, a mapping, or a tensor), in their order."""
    if isinstance(batch, Tensor):
        return [batch]
    if isinstance(batch, dict):
        parts = [batch[key] for key in sorted(batch)]
    elif isinstance(batch, list | tuple):
        parts = list(batch)
    else:
        parts = list(vars(batch).values()) if hasattr(batch, "__dict__") else []
    return [tensor for part in parts for tensor in batch_tensors(part)]


def with_example_indices(batch: TrainingBatch, indices: Int[Tensor, " row"]) -> TrainingBatch:
    """The same batch that tells which examples it holds."""
    return replace(batch, indices=indices)
