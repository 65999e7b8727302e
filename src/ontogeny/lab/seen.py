"""What a pass saw of one concept at one checkpoint: all that its measurement needs, and all that is worth keeping for another one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from ontogeny.concept import Concept
from ontogeny.lab.behaviour import margins
from ontogeny.lab.capture import Captured
from ontogeny.lab.texts import Rows
from ontogeny.records import Record
from ontogeny.sites import Site


@dataclass(frozen=True)
class Seen:
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
    def of(cls, concept: Concept, captured: Captured, rows: Rows) -> "Seen":
        return cls(
            parts={part: values[:, rows.reads] for part, values in captured.parts.items()},
            sites=captured.sites,
            inputs=captured.inputs[rows.sequences],
            margin=margins(captured.answers.cpu(), rows) if concept.answers else None,
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
