"""Activations read for one concept at one checkpoint: the input of `measure`, and an entry of the activation cache."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from ontogeny.activations.batching import ActivationRead, Workload
from ontogeny.activations.capture import CaptureResult, capture_workload
from ontogeny.activations.workload import ConceptRows
from ontogeny.data.concept import Concept
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.sites import Site


@dataclass(frozen=True)
class Activations:
    """Pooled activations of all examples, with the answer margins of the concept's questions."""

    parts: Mapping[str, Float[Tensor, "site example d"]]
    """On the model's device, where probes and dependence are computed."""
    sites: Mapping[str, Sequence[Site]]
    """Sites of each part, in the order of its tensor."""
    inputs: Float[Tensor, "example d"]
    """Mean embedding of each text."""
    margin: Float[Tensor, " answer"] | None
    """Log-likelihood of the right minus the wrong answer of each question, nats."""
    truncated: Mapping[str, int] = field(default_factory=dict)
    """Number of `texts` and `prompts` truncated to the context."""
    template: str = "none"
    """Name of the template of this model that the texts are in."""

    @classmethod
    def of(cls, concept: Concept, captured: CaptureResult, rows: ConceptRows) -> "Activations":
        """The rows of one concept in the result of a pass over several."""
        return cls(
            parts={part: values[:, rows.reads] for part, values in captured.parts.items()},
            sites=captured.sites,
            inputs=captured.inputs[rows.sequences],
            margin=answer_margins(captured.answers.cpu(), rows) if concept.answers else None,
            truncated=rows.truncated,
            template=rows.template,
        )

    def truncation_rows(self, concept: Concept, seed: int) -> list[Record]:
        """Records of how many texts and prompts were truncated; empty without truncation."""
        total = {"texts": len(concept.examples), "prompts": len(concept.answers)}
        return [
            Record(
                "shortened", count, concept=concept.name, split="all", n=total[what], seed=seed, coords={"what": what}
            )
            for what, count in self.truncated.items()
            if count
        ]


def template_rows(concept: Concept, name: str, seed: int) -> list[Record]:
    """A record of the template that the texts of a concept are in at a checkpoint, 0 for none; empty if no template was asked for.

    Args:
        name: `template_name` of the checkpoint's tokenizer.
    """
    if not concept.template:
        return []
    inside, n = float(name != "none"), len(concept.examples) + len(concept.answers)
    coords = {"template": name}
    return [Record("in_template", inside, concept=concept.name, split="all", n=n, seed=seed, coords=coords)]


def activations_at_token(
    model: Model, rows: Sequence[Int[Tensor, " token"]], tokens: Sequence[int], sites: Sequence[Site]
) -> Float[Tensor, "site example d"]:
    """Activations at one token of each row, on the CPU; all sites must have one width and are returned in the given order."""
    reads = tuple(
        ActivationRead(i, one_hot(torch.tensor(token % len(row)), len(row)).float())
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True))
    )
    result = capture_workload(model, Workload(tuple(tuple(row.tolist()) for row in rows), reads), sites)
    return torch.stack([result.parts[site.part][result.sites[site.part].index(site)] for site in sites]).cpu()


def answer_margins(answers: Float[Tensor, " scored"], rows: ConceptRows) -> Float[Tensor, " answer"]:
    """Log-likelihood of the right minus the wrong answer of each question, nats."""
    return answers[rows.right] - answers[rows.wrong]
