"""How likely a model finds given answers: the log-probability of each answer token, steered or not, with exact counts.

Prompt and answer are tokenised together and padded on the right, where no token of a causal model sees the padding. The answer's
tokens are those that end behind the prompt; a score is summed or averaged over these alone, never over the length of a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.data.tokenization import encode_text
from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from ontogeny.steering.steer import Edits, edits_for_prompts, steer


@dataclass(frozen=True, eq=False)
class TokenizedAnswer:
    """One answer behind its prompt, as tokens."""

    ids: Int[Tensor, " token"]
    """Prompt and answer."""
    prompt: int
    """Tokens of the prompt; what follows is the answer."""

    @property
    def tokens(self) -> int:
        """Tokens of the answer."""
        return len(self.ids) - self.prompt


def tokenize_answers(model: Model, pairs: Sequence[tuple[str, str]]) -> list[TokenizedAnswer]:
    """Prompts and their answers as tokens.

    Raises:
        BadInput: an answer without tokens, an empty prompt, or more tokens than the context holds.
    """
    return [_tokenize_answer(model, prompt, answer) for prompt, answer in pairs]


def _tokenize_answer(model: Model, prompt: str, answer: str) -> TokenizedAnswer:
    made = encode_text(model.tokenizer, prompt + answer)
    mine = ((made.offsets[:, 1] > len(prompt)) & ~made.special).nonzero().flatten().tolist()
    if not mine or not answer.strip():
        raise BadInput(f"an answer has no tokens: {answer!r} behind {prompt[:60]!r}. Give it a word.")
    if mine[0] == 0:
        raise BadInput(
            f"the answer {answer[:60]!r} has nothing before it, so its first token has no score. Give a prompt."
        )
    if mine[-1] + 1 > model.context:
        raise BadInput(
            f"a prompt and its answer have {mine[-1] + 1} tokens, the context {model.context}: {prompt[:60]!r}. Shorten it."
        )
    return TokenizedAnswer(made.ids[: mine[-1] + 1], mine[0])


@torch.no_grad()
def token_log_likelihoods(
    model: Model, answers: Sequence[TokenizedAnswer], edits: Edits = (), *, batch: int = 32
) -> list[Float[Tensor, " token"]]:
    """The log-probability of each token of each answer, in nats. For an edit, the answer's tokens are `generated`."""
    if not model.architecture.causal:
        raise BadInput(
            f"{model.network.config.model_type} foretells no next token, so answers have no score. Choose a causal model."
        )
    order = sorted(range(len(answers)), key=lambda i: len(answers[i].ids))
    found: dict[int, Tensor] = {}
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        found.update(
            zip(
                rows,
                _batch_log_likelihoods(model, [answers[i] for i in rows], edits_for_prompts(edits, rows)),
                strict=True,
            )
        )
    return [found[i] for i in range(len(answers))]


def _batch_log_likelihoods(model: Model, answers: Sequence[TokenizedAnswer], edits: Edits) -> list[Tensor]:
    ids = torch.nn.utils.rnn.pad_sequence([a.ids for a in answers], batch_first=True)
    lengths = torch.tensor([len(a.ids) for a in answers])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    with steer(model, edits, prompts=[a.prompt for a in answers]):
        logits = model.network(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False
        ).logits
    return [
        # The token at a place is foretold one place before.
        logits[row, a.prompt - 1 : len(a.ids) - 1]
        .float()
        .log_softmax(-1)
        .cpu()
        .gather(1, a.ids[a.prompt :, None])[:, 0]
        for row, a in enumerate(answers)
    ]


def log_likelihoods(scores: Sequence[Float[Tensor, " token"]]) -> Float[Tensor, " answer"]:
    """Log-probability of each whole answer, nats."""
    return torch.stack([score.double().sum() for score in scores])


def mean_log_likelihoods(scores: Sequence[Float[Tensor, " token"]]) -> Float[Tensor, " answer"]:
    """Mean over an answer's own tokens, nats per token."""
    return torch.stack([score.double().mean() for score in scores])
