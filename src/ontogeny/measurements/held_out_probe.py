"""A fitted probe with the scores of examples that it was not fitted on."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ontogeny.measurements.design import Design
from ontogeny.probes import FoldProbes, Probe


@dataclass(frozen=True, eq=False)
class HeldOutProbe:
    """A probe fitted on all training examples and, under cross-fitting, one for each fold."""

    probe: Probe
    folds: FoldProbes | None = None

    def held_out_scores(self, x: Float[Tensor, "site example d"], design: Design) -> Float[Tensor, "site test k"]:
        """Scores of the test examples by probes that were not fitted on them."""
        if self.folds is None or design.test_folds is None:
            return self.probe.scores(x[:, design.split.test])
        return self.folds.held_out_scores(x, design.test_folds)

    def lengths(self, design: Design) -> Float[Tensor, "site test"]:
        """Length of the direction that scores each test example, of a probe of two classes."""
        if self.folds is None or design.test_folds is None:
            return self.probe.direction[..., 0].norm(dim=1)[:, None].expand(-1, len(design.split.test))
        return self.folds.direction[..., 0].norm(dim=1)[:, design.test_folds]
