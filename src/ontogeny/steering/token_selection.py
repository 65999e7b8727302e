"""Selection of the tokens an edit acts on, counted within each row, whatever the padding, KV cache and beams."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ontogeny.errors import BadInput, unknown_name

TokenSelector = Literal["all", "prompt", "generated", "last"]
TokenSelection = TokenSelector | Sequence[Bool[Tensor, " token"]]
"""`last` is the last token of the prompt and every later one: each is the newest token at some step of a generation.
Or one mask per row, over the tokens of its prompt."""
TOKEN_SELECTORS = ("all", "prompt", "generated", "last")


@dataclass
class PassTokens:
    """The tokens of the current forward pass, read from its arguments."""

    prompts: Int[Tensor, " row"] | None = None
    """Token count of each prompt."""
    index: Int[Tensor, "row query"] = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.long))
    """Position of each token in its row, from 0; arbitrary for padding."""
    real: Bool[Tensor, "row query"] = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))
    keys: Int[Tensor, "row key"] = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.long))
    """Positions of all keys, cached ones included."""
    key_is_real: Bool[Tensor, "row key"] = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))

    def update(self, call: dict[str, Any]) -> None:
        """Read the arguments of a forward pass that is about to run."""
        ids = call["inputs_embeds"] if call.get("input_ids") is None else call["input_ids"]
        batch, query = ids.shape[:2]
        cache = call.get("past_key_values")
        total = query + (cache.get_seq_length() if cache is not None else 0)
        mask = call.get("attention_mask")
        if mask is not None and (mask.ndim != 2 or mask.shape[1] < total):
            raise BadInput(f"the attention mask must have one number per token, got shape {tuple(mask.shape)}.")
        # The mask of a static cache is longer than the tokens so far.
        self.key_is_real = (
            torch.ones(batch, total, dtype=torch.bool, device=ids.device) if mask is None else mask[:, :total].bool()
        )
        self.keys = self.key_is_real.long().cumsum(1) - 1
        self.real, self.index = self.key_is_real[:, total - query :], self.keys[:, total - query :]

    def mask(self, where: TokenSelection) -> Bool[Tensor, "row query"] | None:
        """True where an edit acts in this pass; None if it acts on all tokens."""
        # Padding may be edited, since no token attends to it.
        return None if where == "all" else self._within(where, self.index, self.real)

    def key_mask(self, where: TokenSelection) -> Bool[Tensor, "row key"]:
        """The same for the keys of attention."""
        return self.key_is_real if where == "all" else self._within(where, self.keys, self.key_is_real)

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
                "the token counts of the prompts are needed to tell prompt from generated tokens: pass `prompts`."
            )
        return torch.stack(_repeat_for_samples(list(self.prompts), rows))


def _repeat_for_samples(per_prompt: list[Tensor], rows: int) -> list[Tensor]:
    """One entry per row; beams and samples of a prompt are adjacent in the batch."""
    times, rest = divmod(rows, len(per_prompt))
    if rest or not times:
        raise BadInput(
            f"the rows of a forward pass must be a multiple of the prompts, got {rows} rows for {len(per_prompt)}: give one mask and "
            "one count per prompt."
        )
    return [one for one in per_prompt for _ in range(times)]


def check_token_selection(where: Any) -> TokenSelection:
    """The selection itself.

    Raises:
        BadInput: neither one of `TOKEN_SELECTORS` nor a list of boolean masks.
    """
    if isinstance(where, str):
        if where not in TOKEN_SELECTORS:
            raise unknown_name("set of tokens", where, TOKEN_SELECTORS)
        return where  # type: ignore[return-value]
    masks = list(where)
    if not masks or any(not isinstance(m, Tensor) or m.dtype != torch.bool or m.ndim != 1 for m in masks):
        raise BadInput(
            "tokens must be selected by a word (all, prompt, generated, last) or by one mask of True and False per prompt."
        )
    return masks
