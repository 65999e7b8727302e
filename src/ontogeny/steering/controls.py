"""Compare an intervention's effect with norm-matched random interventions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.statistics.nulls import null_interval, null_p_value
from ontogeny.steering.steer import Edit, Edits, as_edits, control_edits


@dataclass(frozen=True, eq=False)
class EffectWithControls:
    """Effects of an edit and of its controls."""

    value: float
    """Steered minus unsteered."""
    controls: Float[Tensor, " control"]

    @property
    def low(self) -> float:
        """2.5 % quantile of the controls."""
        return null_interval(self.controls)[0]

    @property
    def high(self) -> float:
        """97.5 % quantile of the controls."""
        return null_interval(self.controls)[1]

    @property
    def p(self) -> float:
        """Two-sided p-value: share of the controls at least as far from their mean, the edit itself included."""
        return null_p_value(self.value, self.controls)


def compare_with_controls(
    measure: Callable[[list[Edit]], float], edits: Edits, *, seeds: Sequence[int] = range(200)
) -> EffectWithControls:
    """Call `measure` without an edit, with the edits, and for each seed with norm-matched controls.

    Raises:
        BadInput: no seeds, or no edit that changes anything.
    """
    wanted = as_edits(edits)
    if not seeds or all(edit.what.is_noop for edit in wanted):
        raise BadInput(
            "an effect needs an edit that changes something and at least one control: set `alpha`, and give `seeds`."
        )
    base = measure([])
    nulls = [measure(one) - base for one in control_edits(wanted, seeds)]
    return EffectWithControls(measure(wanted) - base, torch.tensor(nulls, dtype=torch.float64))
