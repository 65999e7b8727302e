"""A BERT encoder that reads a number at every entry of a matrix with gaps (arXiv:2410.22244): post-norm, learned positions, no dropout."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import BertConfig, BertModel


class MatrixEncoder(nn.Module):
    """BERT with one linear read-out per entry.

    Args:
        vocabulary: Number of tokens.
        entries: Entries of a matrix.
        width: Width of the stream; heads are 16 wide, the MLP four times as wide.
        spread: Standard deviation of the initial weights.
    """

    def __init__(self, vocabulary: int, entries: int, width: int, layers: int, spread: float = 0.02) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=max(1, width // 16),
            intermediate_size=4 * width,
            max_position_embeddings=entries,
            type_vocab_size=1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=spread,
        )
        config._attn_implementation = "eager"  # the other one returns no attention
        self.body = BertModel(config, add_pooling_layer=False)
        self.read_out = nn.Linear(width, 1)
        nn.init.normal_(self.read_out.weight, std=0.02)  # numbers near 0 at first: the loss begins on its plateau
        nn.init.zeros_(self.read_out.bias)

    def forward(self, ids: Int[Tensor, "row entry"]) -> Float[Tensor, "row entry"]:
        numbers: Tensor = self.read_out(self.body(input_ids=ids).last_hidden_state)[..., 0]
        return numbers

    @torch.no_grad()
    def hidden_states(self, ids: Int[Tensor, "row entry"]) -> Float[Tensor, "layer row entry width"]:
        """Output of each block."""
        return torch.stack(self.body(input_ids=ids, output_hidden_states=True).hidden_states[1:])

    @torch.no_grad()
    def mean_attention(self, ids: Int[Tensor, "row entry"]) -> Float[Tensor, "layer head entry entry"]:
        """Attention of each head, mean over the rows."""
        return torch.stack([layer.mean(0) for layer in self.body(input_ids=ids, output_attentions=True).attentions])

    @torch.no_grad()
    def patched(
        self, ids: Int[Tensor, "row entry"], source: Int[Tensor, "row entry"], layer: int
    ) -> Float[Tensor, "row entry"]:
        """Numbers for `ids` with the outputs of all heads of a block as they are for `source`.

        Args:
            layer: Block, counted from 1.
        """
        heads = self.body.encoder.layer[layer - 1].attention.self
        kept: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: tuple[Tensor, ...]) -> None:
            kept.append(output[0])

        def replace(module: nn.Module, inputs: Any, output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (kept[0], *output[1:])

        for hook, tokens in ((keep, source), (replace, ids)):
            handle = heads.register_forward_hook(hook)
            try:
                numbers: Tensor = self(tokens)
            finally:
                handle.remove()
        return numbers


MATRIX_PARTS = ("token embeddings", "positions", "attention", "MLP")


def matrix_part(name: str) -> str | None:
    """The part of `MatrixEncoder` that a parameter belongs to; None for the norm of the embeddings and the read-out."""
    if "embeddings" in name:
        named = {"word_embeddings": "token embeddings", "position_embeddings": "positions"}
        return next((part for key, part in named.items() if key in name), None)
    if "encoder" not in name:
        return None
    return "attention" if ".attention." in name else "MLP"
