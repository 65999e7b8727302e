"""Tokens of a comparison: ordinary ones with a usable row in every model, and how often they occur.

Frequency dominates the geometry of embeddings, and rare tokens form a cluster of their own, so that it is read beside every token. Without
texts it is the order of the merges of a BPE tokenizer (arXiv:1508.07909), where the most frequent pair was merged first.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FrequencySource = Literal["texts", "merges", "none"]


@dataclass(frozen=True, eq=False)
class ComparedTokens:
    """Tokens that are compared, in random order, so that the first ones are a sample of all."""

    ids: Int[Tensor, " token"]
    names: tuple[str, ...]
    log_frequency: Float[Tensor, " token"] | None
    """Natural logarithm; None if it is not known."""
    frequency: FrequencySource
    """Where the frequencies come from."""

    def __len__(self) -> int:
        return len(self.names)


def ordinary_tokens(tokenizer: "PreTrainedTokenizerBase") -> dict[str, int]:
    """The vocabulary without special and added tokens."""
    aside = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    return {token: number for token, number in tokenizer.get_vocab().items() if token not in aside}


def check_shared_tokens(one: Mapping[str, int], other: Mapping[str, int], names: tuple[str, str]) -> None:
    """Raise BadInput unless both vocabularies hold the same tokens under the same ids."""
    if one == other:
        return
    alike = sum(other.get(token) == number for token, number in one.items())
    raise BadInput(
        f"{names[0]} and {names[1]} must share a tokenizer, got {len(one):,} and {len(other):,} tokens of which {alike:,} have the same "
        "id: compare models of one tokenizer."
    )


def count_tokens(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], size: int) -> Int[Tensor, " id"]:
    """How often each id occurs in texts, without the special tokens that the tokenizer adds."""
    counts = torch.zeros(size, dtype=torch.long)
    for start in range(0, len(texts), 1000):
        for ids in tokenizer(list(texts[start : start + 1000]), add_special_tokens=False, verbose=False)["input_ids"]:
            counts += torch.bincount(torch.tensor(ids, dtype=torch.long), minlength=size)[:size]
    return counts


def choose_tokens(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str] = (), *, least_count: int = 1, seed: int = 0
) -> ComparedTokens:
    """The ordinary tokens in random order, with their frequencies in texts, else by the order of merges.

    Args:
        texts: Of the language that the models were trained on. If given, tokens that occur less often than `least_count` are left out.

    Raises:
        BadInput: no token occurs so often.
    """
    ordinary = sorted(ordinary_tokens(tokenizer).items(), key=lambda pair: pair[1])
    log_frequency: Tensor | None = None
    source: FrequencySource = "none"
    if texts:
        counts = count_tokens(tokenizer, texts, 1 + max(tokenizer.get_vocab().values()))
        ordinary = [(token, number) for token, number in ordinary if counts[number] >= least_count]
        if not ordinary:
            raise BadInput(f"`texts` must hold a token {least_count} times, got none: give more texts.")
        log_frequency = counts[[number for _, number in ordinary]].double().log().float()
        source = "texts"
    elif _has_merges(tokenizer):
        # Zipf's law: the frequency falls as one over the rank.
        log_frequency, source = -torch.arange(1, len(ordinary) + 1).double().log().float(), "merges"
    order = torch.randperm(len(ordinary), generator=torch.Generator().manual_seed(seed)).tolist()
    names = tuple(readable_token(ordinary[i][0]) for i in order)
    ids = torch.tensor([ordinary[i][1] for i in order])
    return ComparedTokens(ids, names, None if log_frequency is None else log_frequency[order], source)


def readable_token(token: str) -> str:
    """A token with a plain space in place of its mark."""
    return token.replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n")


def usable_rows(rows: Float[Tensor, "token d"]) -> Tensor:
    """Which rows are finite and not zero, and so have a direction."""
    return rows.isfinite().all(1) & rows.ne(0).any(1)


def _has_merges(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    return bool(json.loads(backend.to_str())["model"].get("merges"))
