"""Which tokens of a forward pass are meant, counted in each row's own tokens: padding, cache and beams cannot move them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ontogeny.errors import BadInput, unknown_name

TokenSelector = Literal["all", "prompt", "generated", "last"]
TokenSelection = TokenSelector | Sequence[Bool[Tensor, " token"]]
"""`last` is the last token of the prompt and every one behind it: what is the newest token at some point of a generation.
Or one mask a row, over the tokens of its prompt."""
TOKEN_SELECTORS = ("all", "prompt", "generated", "last")


@dataclass
class PassTokens:
    """The tokens of the pass that is running, told by its own arguments before it starts."""

    prompts: Int[Tensor, " row"] | None = None
    """Tokens of each prompt."""
    index: Int[Tensor, "row query"] = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.long))
    """Number of each token in its row, from 0; of padding, anything."""
    real: Bool[Tensor, "row query"] = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))
    keys: Int[Tensor, "row key"] = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.long))
    """The same number for all tokens that can be looked at, those in the cache included."""
    seen: Bool[Tensor, "row key"] = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))

    def see(self, call: dict[str, Any]) -> None:
        ids = call["inputs_embeds"] if call.get("input_ids") is None else call["input_ids"]
        batch, query = ids.shape[:2]
        cache = call.get("past_key_values")
        total = query + (cache.get_seq_length() if cache is not None else 0)
        mask = call.get("attention_mask")
        if mask is not None and (mask.ndim != 2 or mask.shape[1] < total):
            raise BadInput(
                f"the attention mask of shape {tuple(mask.shape)} does not say which tokens are real. Pass one number a token."
            )
        # A cache of fixed size has a longer mask than tokens so far.
        self.seen = (
            torch.ones(batch, total, dtype=torch.bool, device=ids.device) if mask is None else mask[:, :total].bool()
        )
        self.keys = self.seen.long().cumsum(1) - 1
        self.real, self.index = self.seen[:, total - query :], self.keys[:, total - query :]

    def mask(self, where: TokenSelection) -> Bool[Tensor, "row query"] | None:
        """True where an edit acts in this pass; None where it acts on all."""
        # Padding may be edited with the rest: no token looks at it.
        return None if where == "all" else self._within(where, self.index, self.real)

    def looked_at(self, where: TokenSelection) -> Bool[Tensor, "row key"]:
        """The same for tokens as keys of attention."""
        return self.seen if where == "all" else self._within(where, self.keys, self.seen)

    def _within(self, where: TokenSelection, index: Tensor, real: Tensor) -> Tensor:
        lengths = self._lengths(len(index)).to(index.device)[:, None]
        match where:
            case "prompt":
                return real & (index < lengths)
            case "generated":
                return real & (index >= lengths)
            case "last":
                return real & (index >= lengths - 1)
        masks = _repeat_for_samples([m for m in where if isinstance(m, Tensor)], len(index))
        padded = torch.nn.utils.rnn.pad_sequence([*masks], batch_first=True).to(index.device)
        inside = (index >= 0) & (index < torch.tensor([len(m) for m in masks], device=index.device)[:, None])
        return real & inside & padded.gather(1, index.clamp(0, padded.shape[1] - 1))

    def _lengths(self, rows: int) -> Tensor:
        if self.prompts is None:
            raise BadInput(
                "which tokens are prompt and which are generated is not known. Pass prompts=, their token counts."
            )
        return torch.stack(_repeat_for_samples(list(self.prompts), rows))


def _repeat_for_samples(one_a_prompt: list[Tensor], rows: int) -> list[Tensor]:
    """Beams and samples of one prompt are neighbours in the batch."""
    times, rest = divmod(rows, len(one_a_prompt))
    if rest or not times:
        raise BadInput(
            f"{len(one_a_prompt)} prompts were announced, but a pass has {rows} rows. Give one mask and one count for each prompt."
        )
    return [one for one in one_a_prompt for _ in range(times)]


def check_token_selection(where: Any) -> TokenSelection:
    """A word, or masks.

    Raises:
        BadInput: neither.
    """
    if isinstance(where, str):
        if where not in TOKEN_SELECTORS:
            raise unknown_name("set of tokens", where, TOKEN_SELECTORS)
        return where  # type: ignore[return-value]
    masks = list(where)
    if not masks or any(not isinstance(m, Tensor) or m.dtype != torch.bool or m.ndim != 1 for m in masks):
        raise BadInput(
            "tokens are chosen by a word (all, prompt, generated, last) or by one mask of True and False a prompt."
        )
    return masks
