"""What a direction does to refusing: ablated from all that writes into the stream, or added behind one block (arXiv:2406.11717)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.interventions import Add
from ontogeny.models.model import Model, next_token_logits
from ontogeny.sites import Site
from ontogeny.steering.generate import DecodingConfig, generate
from ontogeny.steering.refusal_score import is_refusal
from ontogeny.steering.steer import Edit, Edits, ablate_everywhere, steer
from ontogeny.steering.token_selection import TokenSelection
from ontogeny.studies.refusal.prompts import Instruction, PromptTemplate

REFUSAL_EDITS = ("ablation", "addition")


@dataclass(frozen=True, eq=False)
class RefusalPrompts:
    """Instructions put to one model."""

    model: Model
    framing: PromptTemplate
    texts: tuple[str, ...]
    ids: tuple[Int[Tensor, " token"], ...]
    first: tuple[tuple[int, ...], ...]
    """The tokens with which a refusal would begin."""
    phrases: tuple[str, ...]

    @classmethod
    def of(
        cls, model: Model, framing: PromptTemplate, given: Sequence[Instruction], phrases: Sequence[str]
    ) -> "RefusalPrompts":
        texts = tuple(one.text for one in given)
        ids, first = framing.asked(model, texts, phrases)
        return cls(model, framing, texts, tuple(ids), tuple(map(tuple, first)), tuple(phrases))

    @torch.no_grad()
    def log_odds(self, edits: Edits = (), *, batch: int = 64) -> Float[Tensor, " prompt"]:
        """Log-odds that the next token begins a refusal, as `lab.refusal` has it, many prompts a pass."""
        order = sorted(range(len(self.ids)), key=lambda i: len(self.ids[i]))
        found = torch.empty(len(order), dtype=torch.float64)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            scores = self._last(rows, edits).double().log_softmax(-1)
            for row, i in enumerate(rows):
                beginning = torch.zeros(scores.shape[1], dtype=torch.bool)
                beginning[list(self.first[i])] = True
                found[i] = scores[row, beginning].logsumexp(0) - scores[row, ~beginning].logsumexp(0)
        return found

    def _last(self, rows: list[int], edits: Edits) -> Float[Tensor, "row vocab"]:
        ids = torch.nn.utils.rnn.pad_sequence([self.ids[i] for i in rows], batch_first=True).to(self.model.device)
        lengths = torch.tensor([len(self.ids[i]) for i in rows])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long().to(self.model.device)
        with steer(self.model, edits, prompts=lengths):
            normed = self.model.body(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            return next_token_logits(self.model, normed[torch.arange(len(rows)), lengths - 1]).cpu()

    def refused(self, edits: Edits = (), *, tokens: int = 16) -> Float[Tensor, " prompt"]:
        """1 where the greedy continuation begins with one of the phrases."""
        prompts = [self.framing.framed(text) for text in self.texts]
        said = generate(self.model, prompts, edits, DecodingConfig(tokens=tokens, batch=64))
        return torch.tensor([float(is_refusal(one.text, self.phrases)) for (one,) in said], dtype=torch.float64)


def refusal_edits(
    model: Model, act: str, vector: Float[Tensor, " d"], *, layer: int, dose: float, where: TokenSelection = "all"
) -> list[Edit]:
    """The vector ablated wherever something writes into the stream, or added with a length of `dose` behind a block."""
    if act == "ablation":
        return ablate_everywhere(model, vector.float())
    return [Edit(Site("resid", layer), Add(vector.float() / vector.float().norm(), dose), where)]
