"""What a pass saw of one concept at one checkpoint: all that its measurement needs, and all that is worth keeping for another one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.activations.batching import ActivationRead, Workload
from ontogeny.activations.capture import CaptureResult, capture
from ontogeny.activations.workload import ConceptRows
from ontogeny.data.concept import Concept
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.sites import Site


@dataclass(frozen=True)
class Activations:
    parts: Mapping[str, Float[Tensor, "site example d"]]
    """Where the model is: fits and dependence are computed there, too."""
    sites: Mapping[str, Sequence[Site]]
    """Of each part, in the order of its tensor."""
    inputs: Float[Tensor, "example d"]
    """Mean embedding of each text."""
    margin: Float[Tensor, " answer"] | None
    """Log-likelihood of the right minus the wrong answer of each question, nats."""
    shortened: Mapping[str, int] = field(default_factory=dict)
    """How many `texts` and `prompts` were cut to the context."""

    @classmethod
    def of(cls, concept: Concept, captured: CaptureResult, rows: ConceptRows) -> "Activations":
        return cls(
            parts={part: values[:, rows.reads] for part, values in captured.parts.items()},
            sites=captured.sites,
            inputs=captured.inputs[rows.sequences],
            margin=answer_margins(captured.answers.cpu(), rows) if concept.answers else None,
            shortened=rows.shortened,
        )

    def cuts(self, concept: Concept, seed: int) -> list[Record]:
        """What had to be cut to the context, as rows; none where nothing was."""
        of = {"texts": len(concept.examples), "prompts": len(concept.answers)}
        return [
            Record("shortened", count, concept=concept.name, split="all", n=of[what], seed=seed, coords={"what": what})
            for what, count in self.shortened.items()
            if count
        ]


def activations_at_token(
    model: Model, rows: Sequence[Int[Tensor, " token"]], tokens: Sequence[int], sites: Sequence[Site]
) -> Float[Tensor, "site example d"]:
    """What stands at one token of each row; sites of one width, in the order given."""
    reads = tuple(
        ActivationRead(i, _one(len(row), token)) for i, (row, token) in enumerate(zip(rows, tokens, strict=True))
    )
    content = tuple(torch.full((len(row),), 1 / len(row)) for row in rows)
    seen = capture(model, Workload(tuple(tuple(row.tolist()) for row in rows), reads, content=content), sites)
    return torch.stack([seen.parts[site.part][seen.sites[site.part].index(site)] for site in sites]).cpu()


def _one(length: int, token: int) -> Float[Tensor, " token"]:
    weights = torch.zeros(length)
    weights[token] = 1.0
    return weights


def answer_margins(answers: Float[Tensor, " scored"], rows: ConceptRows) -> Float[Tensor, " answer"]:
    """Log-likelihood of the right minus the wrong answer of each question, nats."""
    return answers[rows.right] - answers[rows.wrong]
