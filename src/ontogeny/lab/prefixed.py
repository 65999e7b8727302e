"""Score answers under many edits at the price of the answers alone: the prompts run once, and their keys and values stay.

An edit of `last` or `generated` tokens cannot change what stands before the last token of a prompt, so that is what is kept. Two hundred
controls then cost two hundred times a few tokens, not two hundred times the prompts.
"""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from ontogeny.errors import BadInput
from ontogeny.lab.answers import Answer
from ontogeny.lab.generation import check_speaks, padded_left
from ontogeny.lab.steering import Edits, edits_of, steered
from ontogeny.model import Model


@dataclass(frozen=True, eq=False)
class _Batch:
    rows: list[int]
    cache: Any
    """Keys and values of all but the last token of each prompt; None where no prompt has more than one."""
    ids: Int[Tensor, "row token"]
    """The last token of the prompt and the answer, padded on the right."""
    mask: Int[Tensor, "row column"]
    """Of the cached tokens and these."""


@dataclass(frozen=True, eq=False)
class Prefixed:
    """Answers whose prompts have run: `Prefixed.of(model, answers).scores(edits)`."""

    model: Model
    answers: tuple[Answer, ...]
    batches: tuple[_Batch, ...]

    @classmethod
    @torch.no_grad()
    def of(cls, model: Model, answers: Sequence[Answer], *, batch: int = 32) -> "Prefixed":
        """Run the prompts, unsteered."""
        check_speaks(model)
        order = sorted(range(len(answers)), key=lambda i: answers[i].prompt)
        chunks = [order[start : start + batch] for start in range(0, len(order), batch)]
        return cls(model, tuple(answers), tuple(_begun(model, answers, rows) for rows in chunks))

    @torch.no_grad()
    def scores(self, edits: Edits = ()) -> list[Float[Tensor, " token"]]:
        """The log-probability of each token of each answer, as `token_scores` has it.

        Raises:
            BadInput: an edit of tokens before the last of the prompt.
        """
        early = [
            e
            for e in edits_of(edits)
            if not e.what.nothing and (e.where not in ("last", "generated") or e.what.kind != "activation")
        ]
        if early:
            raise BadInput(
                f"an edit at {early[0].site} of {early[0].where!r} tokens changes the prompts, which have run already. "
                "Edit last or generated tokens, or use token_scores."
            )
        found: dict[int, Tensor] = {}
        for one in self.batches:
            found.update(zip(one.rows, self._scores(one, edits), strict=True))
        return [found[i] for i in range(len(self.answers))]

    def _scores(self, one: _Batch, edits: Edits) -> list[Tensor]:
        answers = [self.answers[i] for i in one.rows]
        with steered(self.model, edits, prompts=[a.prompt for a in answers]):
            # A pass adds its own keys to the cache: it gets a copy.
            logits = _run(self.model, one.ids, one.mask, copy.deepcopy(one.cache)).logits
        return [
            logits[row, : a.tokens].float().log_softmax(-1).cpu().gather(1, a.ids[a.prompt :, None])[:, 0]
            for row, a in enumerate(answers)
        ]


def _begun(model: Model, answers: Sequence[Answer], rows: list[int]) -> _Batch:
    heads = [answers[i].ids[: answers[i].prompt - 1] for i in rows]
    tails = [answers[i].ids[answers[i].prompt - 1 :] for i in rows]
    ids = torch.nn.utils.rnn.pad_sequence(tails, batch_first=True).to(model.device)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(tail) for tail in tails], batch_first=True).to(model.device)
    if not any(map(len, heads)):
        return _Batch(rows, None, ids, mask)
    before, seen = (made.to(model.device) for made in padded_left(heads, 0))
    cache = DynamicCache(config=model.network.config)
    _run(model, before, seen, cache)
    return _Batch(rows, cache, ids, torch.cat([seen, mask], 1))


def _run(model: Model, ids: Tensor, mask: Tensor, cache: Any) -> Any:
    told: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": mask,
        "past_key_values": cache,
        "use_cache": cache is not None,
    }
    if "position_ids" in inspect.signature(type(model.network).forward).parameters:
        # Others count from the mask themselves, or have no positions.
        told["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    return model.network(**told)
