"""What a model says when it goes on by itself: several answers to each prompt, drawn token by token.

Prompts of one exact length run together, so there is no padding on the left to get wrong.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ontogeny.errors import BadInput
from ontogeny.training.batches import TokenBatch, pad_batch

RewardFunction = Callable[[Sequence[int], Sequence[int]], float]
"""How good an answer is: `(ids of the prompt, ids of the answer without its stop token) -> reward`."""


def text_reward(reward: Callable[[str, str], float], tokenizer: PreTrainedTokenizerBase) -> RewardFunction:
    """A reward of texts as one of token ids."""

    def of_ids(prompt: Sequence[int], answer: Sequence[int]) -> float:
        told, said = tokenizer.batch_decode([list(prompt), list(answer)], skip_special_tokens=True)
        return reward(told, said)

    of_ids.__name__ = getattr(reward, "__name__", type(reward).__name__)
    return of_ids


@torch.no_grad()
def sample_rollouts(
    network: nn.Module,
    prompts: TokenBatch,
    *,
    copies: int,
    new_tokens: int,
    stop: int | None = None,
    temperature: float = 1.0,
) -> TokenBatch:
    """`copies` answers to each prompt, in its order; each ends with `stop` or after `new_tokens`. The mask marks the answers.

    Raises:
        BadInput: prompt and answer do not fit into the model's context.
    """
    rows = [_prompt_tokens(prompts, row) for row in range(len(prompts.ids))]
    context = getattr(getattr(network, "config", None), "max_position_embeddings", None)
    longest = max(map(len, rows))
    if context is not None and longest + new_tokens > context:
        raise BadInput(
            f"a prompt of {longest} tokens and {new_tokens} new ones do not fit into a context of {context}. "
            "Take fewer new tokens or shorter prompts."
        )
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, ids in enumerate(rows):
        by_length[len(ids)].append(index)
    answers: dict[int, list[list[int]]] = {}
    training = network.training
    network.eval()
    try:
        for _, members in sorted(by_length.items()):
            given = torch.tensor([rows[index] for index in members]).repeat_interleave(copies, 0)
            drawn = _sample_tokens(network, given, new_tokens, stop, temperature)
            for place, index in enumerate(members):
                answers[index] = drawn[place * copies : (place + 1) * copies]
    finally:
        network.train(training)
    whole = [ids + answer for index, ids in enumerate(rows) for answer in answers[index]]
    return pad_batch(whole, [len(ids) for ids in rows for _ in range(copies)])


def _sample_tokens(
    network: nn.Module, ids: Int[Tensor, "row token"], new_tokens: int, stop: int | None, temperature: float
) -> list[list[int]]:
    running = torch.ones(len(ids), dtype=torch.bool)
    answers: list[list[int]] = [[] for _ in ids]
    given, past = ids, None
    for _ in range(new_tokens):
        output = network(given, past_key_values=past, use_cache=True)
        likely = (output.logits[:, -1].float() / temperature).softmax(-1)
        drawn = torch.multinomial(likely, 1)[:, 0]
        for row in running.nonzero()[:, 0].tolist():
            answers[row].append(int(drawn[row]))
        if stop is not None:
            running &= drawn != stop
            if not running.any():
                break
        given, past = drawn[:, None], output.past_key_values
    return answers


def _prompt_tokens(prompts: TokenBatch, row: int) -> list[int]:
    ids = prompts.ids[row]
    kept: list[int] = (ids if prompts.real is None else ids[prompts.real[row]]).tolist()
    return kept
