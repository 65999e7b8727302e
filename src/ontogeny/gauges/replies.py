"""Replies of a model to a user's turns, plain, steered by pins, or pushed along a random direction of equal norm, with their cost.

Decoding is greedy or seeded, so that the same turns give the same conversation again. The cost of an edit is read on the reply itself:
KL of the steered from the unsteered next-token distribution, and cross-entropy of the reply without the edit, nats per token.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.data.chats import Chat
from ontogeny.data.positions import Encoding
from ontogeny.data.templates import Template
from ontogeny.errors import BadInput
from ontogeny.gauges.conversation import encode_prompt
from ontogeny.models.model import Model, tokenizer_fingerprint
from ontogeny.steering.decoding import Prefill
from ontogeny.steering.generate import DecodingConfig, continuation_text, continue_ids
from ontogeny.steering.log_likelihood import TokenizedAnswer, answer_logits, token_log_likelihoods
from ontogeny.steering.steer import Edit


@dataclass(frozen=True, eq=False)
class Reply:
    """The answer of a model to a conversation."""

    text: str
    ids: Int[Tensor, " token"]
    prompt: Encoding
    """The conversation that it answers."""
    divergence: float
    """KL of the steered from the unsteered distribution, nats per token of the reply; 0 without an edit, NaN for an empty reply."""
    surprise: float
    """Cross-entropy of the reply under the unsteered model, nats per token; NaN without an edit: `reply_nats` has it."""
    tokenizer: str
    """Fingerprint of the tokenizer."""


ReplyTo = Callable[[Chat, Sequence[Edit]], Reply]
"""Answers a conversation that ends with a user's turn."""


def reply(
    model: Model, chat: Chat, edits: Sequence[Edit] = (), how: DecodingConfig | None = None, *, template: Template
) -> Reply:
    """One answer, in which edits act on its tokens.

    Args:
        chat: Turns of user and assistant, the user's first and last.
        edits: Interventions, such as `ControlVector.edit` gives.
        how: Decoding of one sample; by default 40 greedy tokens. An answer ends with the context at the latest.
        template: The chat template.

    Raises:
        BadInput: turns in another order, no chat template, or a conversation that is longer than the context.
    """
    return reply_to_prompt(model, encode_prompt(model, chat, template, room=1), edits, how)


def reply_to_prompt(
    model: Model,
    prompt: Encoding,
    edits: Sequence[Edit] = (),
    how: DecodingConfig | None = None,
    *,
    prefill: Prefill | None = None,
) -> Reply:
    """`reply` to a conversation that is encoded.

    Args:
        prompt: From `encode_prompt`, with room for a token.
        edits: As `reply` takes them.
        how: As `reply` takes it.
        prefill: Runs the prompt in the place of its own forward pass, as `continue_ids` takes it.
    """
    how = how or DecodingConfig()
    if how.samples != 1:
        raise BadInput(f"`samples` must be 1 for a reply, got {how.samples}: ask again with another `seed`.")
    left = replace(how, tokens=min(how.tokens, model.context - len(prompt.ids)))
    ((ids,),) = continue_ids(model, [prompt.ids], list(edits), left, prefill=prefill)
    divergence, surprise = _cost(model, prompt.ids, ids, edits)
    text = continuation_text(model, prompt.ids, ids).strip()
    return Reply(text, ids, prompt, divergence, surprise, tokenizer_fingerprint(model))


def reply_words(model: Model, reply: Reply) -> tuple[str, ...]:
    """The text of each token of a reply."""
    ids, before = reply.ids, reply.prompt.ids
    return tuple(continuation_text(model, torch.cat([before, ids[:i]]), ids[i : i + 1]) for i in range(len(ids)))


def converse(
    reply_to: ReplyTo, turns: Sequence[str], edits_at: Callable[[int], Sequence[Edit]]
) -> tuple[Chat, list[Reply]]:
    """The whole conversation that the user's turns make, each answered in the light of the answers before.

    Args:
        reply_to: `reply` of one model, possibly with a memory.
        turns: The user's turns.
        edits_at: Edits of the answer to the user's turn of this number, from 0.

    Returns:
        The chat, which ends with the last answer, and the answers.
    """
    chat: Chat = ()
    replies = []
    for number, words in enumerate(turns):
        chat = (*chat, ("user", words))
        replies.append(reply_to(chat, edits_at(number)))
        chat = (*chat, ("assistant", replies[-1].text))
    return chat, replies


def reply_nats(model: Model, reply: Reply) -> Float[Tensor, " token"]:
    """The log-probability of each token of a reply under a model with the same tokenizer, nats.

    Raises:
        BadInput: the model has another tokenizer.
    """
    if reply.tokenizer != (here := tokenizer_fingerprint(model)):
        raise BadInput(
            f"replies must be of one tokenizer to be compared by token, got {reply.tokenizer} and {here}: compare their texts."
        )
    if not len(reply.ids):
        return torch.zeros(0)
    (nats,) = token_log_likelihoods(model, [_answer(reply.prompt.ids, reply.ids)])
    return nats


def _answer(prompt: Tensor, ids: Tensor) -> TokenizedAnswer:
    return TokenizedAnswer(torch.cat([prompt, ids]), len(prompt))


@torch.no_grad()
def _cost(model: Model, prompt: Tensor, ids: Tensor, edits: Sequence[Edit]) -> tuple[float, float]:
    if not len(ids):
        return math.nan, math.nan
    if all(edit.what.is_noop for edit in edits):
        return 0.0, math.nan
    answer = [_answer(prompt, ids)]
    ((_, plain),), ((_, steered),) = (answer_logits(model, answer, own, batch=1) for own in ((), list(edits)))
    before, after = (logits.float().log_softmax(-1) for logits in (plain, steered))
    surprise = -float(before.gather(1, ids.to(before.device)[:, None]).double().mean())
    return float((after.exp() * (after - before)).double().sum(-1).mean()), surprise
