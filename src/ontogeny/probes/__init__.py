"""Probes: labelled activations in, a linear readout per site out (direction, bias and facts), all sites at once.

To add a probe, write one file in this folder with `fit` (below) and four properties: `targets` (which of binary, classes, number it
takes), `needs_pairs`, `recovers` (the direction its theory promises: the `shift` added to the activations, or the best linear
`readout` of it) and `recovers_from` (`labels` or `pairs`). `tests/contracts/test_probes.py` checks it.

    fit(x: Float[Tensor, "site example d"], y: Tensor, *, groups, pairs=None, seed=0) -> Probe

`y` is bool for binary, a class index (int64) for classes, float for a number; `pairs` is the pair id of each example, -1 for none. A
probe may also have `fit_folds`, with the arguments of `fit` and the `folds` of the examples: the probes of cross-fitting, with what they
share computed once. A probe that needs moments only may also have a `Fitter` with `update(x, y, pairs)` and `fitted`, for streaming.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.errors import BadInput, SingleClassError

__all__ = ["FoldProbes", "Probe", "check_activations", "class_indicators", "number_target", "training_masks"]


@dataclass(frozen=True)
class Probe:
    """A fitted linear readout at each site; scores are positive for the positive class."""

    direction: Float[Tensor, "site d k"]
    """In raw activation space, scaled for `scores`; k = 1 for binary and number, else the number of classes."""
    bias: Float[Tensor, "site k"]
    facts: Mapping[str, Float[Tensor, "site ..."]]
    """Further results of the method: gap, std, strength, cv_score, …"""

    def scores(self, x: Float[Tensor, "site example d"]) -> Float[Tensor, "site example k"]:
        """Linear score of each example; by method a log-odds, a projection or a prediction."""
        # The thin factor is on the left: MKL is far slower with few columns on the right.
        return (self.direction.mT.contiguous() @ x.to(self.direction).mT).mT + self.bias[:, None]

    def tensors(self) -> dict[str, Tensor]:
        """All tensors as one flat dict for safetensors."""
        return {
            "direction": self.direction.contiguous(),
            "bias": self.bias.contiguous(),
            **{f"facts.{name}": value.contiguous() for name, value in self.facts.items()},
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Probe":
        """The probe saved by `tensors`.

        Raises:
            BadInput: direction or bias is missing.
        """
        if not {"direction", "bias"} <= tensors.keys():
            raise BadInput(
                f"a probe needs the tensors direction and bias, got {sorted(tensors)}: save it with tensors()."
            )
        facts = {name.removeprefix("facts."): value for name, value in tensors.items() if name.startswith("facts.")}
        return cls(tensors["direction"], tensors["bias"], facts)


@dataclass(frozen=True)
class FoldProbes:
    """Probes of cross-fitting: that of all examples, and that of each fold, fitted on the other folds."""

    probe: Probe
    direction: Float[Tensor, "site d fold k"]
    bias: Float[Tensor, "site fold k"]
    facts: Sequence[Mapping[str, Float[Tensor, "site ..."]]] = ()
    """Further results of each fold, if the method keeps them."""

    @classmethod
    def of(cls, probe: Probe, folds: Sequence[Probe]) -> "FoldProbes":
        """From separate fits."""
        directions, biases = (
            torch.stack([getattr(f, name) for f in folds], at) for name, at in (("direction", 2), ("bias", 1))
        )
        return cls(probe, directions, biases, [f.facts for f in folds])

    def fold(self, number: int) -> Probe:
        """The probe of one fold."""
        facts = self.facts[number] if self.facts else {}
        return Probe(self.direction[:, :, number], self.bias[:, number], facts)

    def held_out_scores(
        self, x: Float[Tensor, "site example d"], folds: Int[Tensor, " example"]
    ) -> Float[Tensor, "site example k"]:
        """Score of each example by the probe of its fold."""
        # Of all folds by one thin product: selecting the rows of each fold would copy all of x.
        thin = self.direction.flatten(2).mT.contiguous() @ x.to(self.direction).mT
        every = thin.reshape(len(x), *self.bias.shape[1:], -1) + self.bias[..., None]
        at = folds.expand(len(x), 1, self.bias.shape[2], -1)
        return every.gather(1, at)[:, 0].mT.contiguous()


def training_masks(folds: Int[Tensor, " example"]) -> Bool[Tensor, "fold example"]:
    """The examples on which the probe of each fold is fitted."""
    return folds != torch.arange(int(folds.max()) + 1, device=folds.device)[:, None]


def check_activations(method: str, x: Float[Tensor, "site example d"], y: Tensor) -> Float[Tensor, "site example d"]:
    """The activations in float32 or float64.

    Raises:
        BadInput: the rows do not match, or a value is not finite.
    """
    if y.shape != x.shape[1:2]:
        raise BadInput(
            f"{method} needs one target per example, got {x.shape[1]} examples and targets of shape {tuple(y.shape)}."
        )
    # The sum is 40 times as fast to check; it may overflow, so a failure is checked entry by entry.
    if not x.sum().isfinite() and not x.isfinite().all():
        bad = (~x.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        raise BadInput(
            f"{method} needs finite activations, but they are not finite at sites {bad[:8]}: drop these sites, or read in float32."
        )
    return x if x.dtype == torch.float64 else x.float()


def class_indicators(method: str, y: Tensor) -> Bool[Tensor, "example k"]:
    """Indicator columns of the label: one for binary, one per class for classes.

    Raises:
        SingleClassError: all examples have the same label.
        BadInput: a class has fewer than two examples, or the targets are not labels.
    """
    if y.dtype == torch.bool:
        columns, counts = y[:, None], torch.stack([(~y).sum(), y.sum()])
    elif y.dtype == torch.int64:
        if len(y) and int(y.min()) < 0:
            raise BadInput(f"class indices for {method} must be at least 0, got {int(y.min())}: count classes from 0.")
        columns = y[:, None] == torch.arange(int(y.max()) + 1 if len(y) else 0, device=y.device)
        counts = columns.sum(0)
    else:
        raise BadInput(f"{method} needs labels (bool or int64), got {y.dtype}: use ridge for numbers.")
    if (counts > 0).sum() < 2:
        raise SingleClassError(method, n=len(y), label=y[0].item() if len(y) else None)
    if (counts < 2).any():
        rare = (counts < 2).nonzero().flatten().tolist()
        raise BadInput(
            f"{method} needs two examples per class, but class {rare[0]} has {int(counts[rare[0]])}: add examples or drop it."
        )
    return columns


def number_target(method: str, y: Tensor) -> Float[Tensor, " example"]:
    """The target, checked to be a number.

    Raises:
        BadInput: it is not float, not finite, or constant.
    """
    if not y.is_floating_point():
        raise BadInput(f"{method} needs numbers (float), got {y.dtype}: use logistic for labels.")
    if len(y) < 3 or not y.isfinite().all() or y.min() == y.max():
        raise BadInput(
            f"{method} needs at least 3 finite numbers that differ, got {len(y)} numbers: check the target of the concept."
        )
    return y
