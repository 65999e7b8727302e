"""Text of chats for a toy model: a byte-level BPE tokenizer that is trained on them, and rows of packed chats in a template."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ontogeny.data.chats import Chat
from ontogeny.data.templates import render_chat
from ontogeny.errors import BadInput
from ontogeny.training.batches import TokenBatch
from ontogeny.training.toy_models.on_text import train_tokenizer

CHAT_TEMPLATE = (
    "{% for turn in messages %}{{ turn['role'] }}: {{ turn['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""A plain template, for chats that have none."""


@dataclass(frozen=True, eq=False)
class ChatText:
    """Chats as one stream of tokens, with their tokenizer."""

    tokenizer: PreTrainedTokenizerFast
    ids: Int[Tensor, " token"]

    def batch(self, rng: np.random.Generator, rows: int, context: int) -> TokenBatch:
        """Random rows of the stream."""
        starts = torch.from_numpy(rng.integers(len(self.ids) - context, size=rows))
        return TokenBatch(self.ids[starts[:, None] + torch.arange(context)])


def tokenize_chats(chats: Sequence[Chat], *, vocabulary: int, context: int, template: str = CHAT_TEMPLATE) -> ChatText:
    """Train a tokenizer on chats, and tokenize them in a template.

    Args:
        chats: Turns of user and assistant.
        vocabulary: Tokens of the tokenizer.
        context: Tokens of a row; the tokenizer refuses longer texts.

    Raises:
        BadInput: too few chats for the vocabulary, or for a row.
    """
    words = train_tokenizer("\n".join(content for chat in chats for _, content in chat), vocabulary)
    words.chat_template, words.model_max_length = template, context
    rendered = [render_chat(words, chat, True) for chat in chats]
    ids = [token for row in words(rendered, verbose=False)["input_ids"] for token in row]
    if len(ids) <= 2 * context:
        raise BadInput(f"the chats must have more than {2 * context} tokens, got {len(ids)}: give more of them.")
    return ChatText(words, torch.tensor(ids))
