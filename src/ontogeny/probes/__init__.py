"""Fits: labelled activations in, a frozen direction (or one a class) with its bias and its facts out, all sites at once.

A plug-in is one file with `targets` (which of binary, classes, number it takes), `needs_pairs`, `recovers` (which direction its
theory promises: the `shift` that was added to the activations, or the best linear `readout` of it), `recovers_from` (what it needs
for that: `labels` or `pairs`) and

    fit(x: Float[Tensor, "site example d"], y: Tensor, *, groups, pairs=None, seed=0) -> Fitted

with y bool for binary, a class index (int64) for classes, float for a number; pairs = pair id per example, -1 = none. Where a
method needs moments only it also has a `Fitter` with `update(x, y, pairs)` and `fitted`, which streams.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput


@dataclass(frozen=True)
class Probe:
    """What was learned at each site: linear scores, positive for the positive class."""

    direction: Float[Tensor, "site d k"]
    """In raw activation space, in the units that make `scores` right; k = 1 for binary and number, else one a class."""
    bias: Float[Tensor, "site k"]
    facts: Mapping[str, Float[Tensor, "site ..."]]
    """What the method wants kept: gap, std, strength, cv_score, …"""

    def scores(self, x: Float[Tensor, "site example d"]) -> Float[Tensor, "site example k"]:
        """Linear score of each example: a log-odds, a projection or a prediction, by method."""
        # The thin factor on the left: batched products with few columns on the right are far slower in MKL.
        return (self.direction.mT.contiguous() @ x.to(self.direction).mT).mT + self.bias[:, None]

    def tensors(self) -> dict[str, Tensor]:
        """All of it as one flat dict, ready for safetensors."""
        return {
            "direction": self.direction.contiguous(),
            "bias": self.bias.contiguous(),
            **{f"facts.{name}": value.contiguous() for name, value in self.facts.items()},
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Probe":
        """Back from `tensors`.

        Raises:
            BadInput: the dict holds no direction or no bias.
        """
        if missing := {"direction", "bias"} - tensors.keys():
            raise BadInput(
                f"no fit in these tensors: {sorted(missing)} missing, given {sorted(tensors)}. Save a fit with tensors()."
            )
        facts = {name.removeprefix("facts."): value for name, value in tensors.items() if name.startswith("facts.")}
        return cls(tensors["direction"], tensors["bias"], facts)
