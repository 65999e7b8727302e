"""What decides the numbers of the confidence panel; `docs/records.md` says what they mean."""

from dataclasses import dataclass

from ontogeny.errors import BadInput
from ontogeny.neurons.entropy_neurons import WeightProcessing


@dataclass(frozen=True)
class ConfidenceSettings:
    tokens: int = 128
    """Of each text at most."""
    bins: int = 10
    """Of equal width between 0 and 1, for ECE and the reliability diagram; as many of equal counts for its adaptive form."""
    processing: WeightProcessing = "folded"
    top: float = 0.25
    """Candidates have a norm strictly above the (1 − top) quantile …"""
    count: int = 10
    """… and are so many with the smallest logit variance."""
    tested: int = 40
    """Texts on which each candidate and its controls are held at their mean; 0 leaves the test out."""
    each: int = 2
    """Other neurons of the same norm beside each candidate in that test."""
    swaps: int = 20
    """Sets of as many random neurons beside each swap; 0 leaves the swaps out."""
    crossed: int = 4
    """With more stages than that each is swapped with the first and with the one before it alone."""
    scatter: int = 400
    """Neurons that are no candidates in the rows of norms and variances, drawn at random."""
    samples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.tokens, self.bins, self.samples, self.count, self.each) < 1 or min(self.tested, self.swaps) < 0:
            raise BadInput(
                "tokens, bins, samples, count and each are counts from 1 on, tested and swaps from 0. Correct them."
            )
