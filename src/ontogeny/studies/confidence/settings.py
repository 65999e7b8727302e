"""Settings of the confidence study; `docs/records.md` explains the numbers."""

from dataclasses import dataclass

from ontogeny.errors import BadInput
from ontogeny.neurons.entropy_neurons import WeightProcessing


@dataclass(frozen=True)
class ConfidenceSettings:
    tokens: int = 128
    """Maximum tokens of each text."""
    bins: int = 10
    """Bins of equal width for ECE and the reliability diagram; as many of equal counts for the adaptive ECE."""
    processing: WeightProcessing = "folded"
    top: float = 0.25
    """Candidate neurons have a norm strictly above the (1 − top) quantile …"""
    count: int = 10
    """… and the smallest logit variances of these, this many."""
    tested: int = 40
    """Texts on which candidates and controls are mean-ablated; 0 skips the test."""
    each: int = 2
    """Norm-matched neurons per candidate in that test."""
    swaps: int = 20
    """Random sets of neurons per swap between stages; 0 skips the swaps."""
    crossed: int = 4
    """With more stages than this, each is swapped with the first stage and its neighbours only."""
    scatter: int = 400
    """Neurons drawn at random for the rows of norms and variances."""
    samples: int = 1000
    """Bootstrap resamples."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.tokens, self.bins, self.samples, self.count, self.each) < 1 or min(self.tested, self.swaps) < 0:
            raise BadInput(
                f"tokens, bins, samples, count and each must be counts from 1, tested and swaps from 0, got {self}: correct them."
            )
