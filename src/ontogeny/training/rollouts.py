"""Rollouts: sampling several answers to each prompt, token by token.

Prompts of equal length run together, so no left padding is needed.
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
"""Reward of an answer: `(ids of the prompt, ids of the answer without its stop token) -> reward`."""


def text_reward(reward: Callable[[str, str], float], tokenizer: PreTrainedTokenizerBase) -> RewardFunction:
    """Turn a reward of texts into a reward of token ids."""

    def of_ids(prompt: Sequence[int], answer: Sequence[int]) -> float:
        return reward(*tokenizer.batch_decode([list(prompt), list(answer)], skip_special_tokens=True))

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
    """Sample `copies` answers to each prompt, in order; each ends with `stop` or after `new_tokens`. The mask marks the answers.

    Raises:
        BadInput: prompt and answer exceed the model's context.
    """
    rows = [_prompt_tokens(prompts, row) for row in range(len(prompts.ids))]
    context = getattr(getattr(network, "config", None), "max_position_embeddings", None)
    longest = max(map(len, rows))
    if context is not None and longest + new_tokens > context:
        raise BadInput(
            f"prompts of {longest} tokens with {new_tokens} new ones exceed the context of {context}: reduce `new_tokens`, or shorten the "
            "prompts."
        )
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        by_length[len(row)].append(index)
    answers: dict[int, list[list[int]]] = {}
    training = network.training
    network.eval()
    try:
        for _, members in sorted(by_length.items()):
            ids = torch.tensor([rows[index] for index in members]).repeat_interleave(copies, 0)
            samples = _sample_tokens(network, ids, new_tokens, stop, temperature)
            for place, index in enumerate(members):
                answers[index] = samples[place * copies : (place + 1) * copies]
    finally:
        network.train(training)
    texts = [row + answer for index, row in enumerate(rows) for answer in answers[index]]
    return pad_batch(texts, [len(row) for row in rows for _ in range(copies)])


def _sample_tokens(
    network: nn.Module, ids: Int[Tensor, "row token"], new_tokens: int, stop: int | None, temperature: float
) -> list[list[int]]:
    running = torch.ones(len(ids), dtype=torch.bool)
    answers: list[list[int]] = [[] for _ in ids]
    inputs, cache = ids, None
    for _ in range(new_tokens):
        output = network(inputs, past_key_values=cache, use_cache=True)
        probabilities = (output.logits[:, -1].float() / temperature).softmax(-1)
        tokens = torch.multinomial(probabilities, 1)[:, 0]
        for row in running.nonzero()[:, 0].tolist():
            answers[row].append(int(tokens[row]))
        if stop is not None:
            running &= tokens != stop
            if not running.any():
                break
        inputs, cache = tokens[:, None], output.past_key_values
    return answers


def _prompt_tokens(prompts: TokenBatch, row: int) -> list[int]:
    ids = prompts.ids[row]
    tokens: list[int] = (ids if prompts.real is None else ids[prompts.real[row]]).tolist()
    return tokens
