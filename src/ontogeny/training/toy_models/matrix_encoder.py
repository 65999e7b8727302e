"""A BERT encoder that reads a number at every entry of a matrix with gaps (arXiv:2410.22244): post-norm, learned positions, no dropout."""

from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import BertConfig, BertModel


class MatrixEncoder(nn.Module):
    """BERT with one linear read-out per entry.

    Args:
        vocabulary: Number of tokens.
        entries: Entries of a matrix.
        width: Width of the stream; heads are 16 wide, the MLP four times as wide.
    """

    def __init__(self, vocabulary: int, entries: int, width: int, layers: int) -> None:
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
        )
        self.body = BertModel(config, add_pooling_layer=False)
        self.read_out = nn.Linear(width, 1)

    def forward(self, ids: Int[Tensor, "row entry"]) -> Float[Tensor, "row entry"]:
        numbers: Tensor = self.read_out(self.body(input_ids=ids).last_hidden_state)[..., 0]
        return numbers
