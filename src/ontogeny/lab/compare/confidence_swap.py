"""Is it these neurons? The rows that they write, taken from another stage, and how much of the other's confidence comes with them.

The candidates' rows go into the weights themselves. The many random sets beside them are told from the end of the model, kept once.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.lab.answers import answers_of
from ontogeny.lab.compare.confidence_asked import Answered, Question
from ontogeny.lab.entropy_neurons_effect import rows_of
from ontogeny.lab.entropy_neurons_ends import Ends, ends, entropies, likelihoods, renormed
from ontogeny.lab.steering import writer
from ontogeny.model import Model
from ontogeny.sites import Site


@contextlib.contextmanager
@torch.no_grad()
def swapped(model: Model, rows: Float[Tensor, "neuron d"], chosen: Sequence[int]) -> Iterator[None]:
    """While open, the chosen neurons write the given rows; afterwards their own, bit for bit, whatever happened.

    Raises:
        BadInput: rows of another layer's shape, or a neuron that is not there.
    """
    weight = writer(model, Site("mlp", model.layers))
    if rows.shape != weight.shape or any(not 0 <= n < len(weight) for n in chosen):
        raise BadInput(
            f"rows of {tuple(rows.shape)} do not fit a last MLP of {tuple(weight.shape)}, or a neuron is not there. "
            "Swap between stages of one architecture."
        )
    at = list(chosen)
    before = weight[at].clone()
    try:
        weight[at] = rows[at].to(weight)
        yield
    finally:
        weight[at] = before


@dataclass(frozen=True, eq=False)
class Kept:
    """The end of one stage on texts and on answers, for some of its neurons."""

    model: Model
    texts: Ends
    answers: Ends
    targets: Int[Tensor, " token"]
    """The token that each kept token of an answer foretells."""
    right: Int[Tensor, " question"]

    @torch.no_grad()
    def under(self, rows: Float[Tensor, "neuron d"], chosen: Sequence[int]) -> tuple[Float[Tensor, " text"], Answered]:
        """Mean entropy of each text, and beliefs, where the chosen neurons write the given rows: as `swapped` would give them."""
        own = writer(self.model, Site("mlp", self.model.layers))
        change = rows[list(chosen)].to(own) - own[list(chosen)]
        sure = entropies(self.model, self._normed(self.texts, chosen, change))
        likely = self.answers.sum(likelihoods(self.model, self._normed(self.answers, chosen, change), self.targets))
        return self.texts.mean(sure), Answered(likely.view(len(self.right), -1).softmax(1), self.right)

    def _normed(self, of: Ends, chosen: Sequence[int], change: Float[Tensor, "chosen d"]) -> Float[Tensor, "token d"]:
        return renormed(self.model, of, of.of(chosen) @ change)


def kept(
    model: Model, texts: Sequence[str], questions: Sequence[Question], chosen: Sequence[int], *, tokens: int
) -> Kept:
    """Run texts and answers once, and keep what the chosen neurons say on them."""
    wanted = sorted(set(chosen))
    given = answers_of(model, [(q.prompt, option) for q in questions for option in q.options])
    # A token is foretold by the one before it; an answer's own last token foretells nothing that is asked.
    before = [a.ids[:-1] for a in given]
    return Kept(
        model,
        ends(model, rows_of(model, texts, tokens), wanted),
        ends(model, before, wanted, starts=[a.prompt - 1 for a in given]),
        torch.cat([a.ids[a.prompt :] for a in given]),
        torch.tensor([q.right for q in questions]),
    )
