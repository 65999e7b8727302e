"""Does an edit do more than edits as large that know nothing? Its effect beside the effects of its controls."""

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
    """What an edit changed, and what its controls changed."""

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
        """Share of the controls that move as far from their mean, in either direction, the edit itself counted among them."""
        return null_p_value(self.value, self.controls)


def compare_with_controls(
    measure: Callable[[list[Edit]], float], edits: Edits, *, seeds: Sequence[int] = range(200)
) -> EffectWithControls:
    """`measure` is called without an edit, with the edits, and once for each seed with controls that move as far.

    Raises:
        BadInput: no seeds, or edits that change nothing.
    """
    wanted = as_edits(edits)
    if not seeds or all(edit.what.is_noop for edit in wanted):
        raise BadInput(
            "an effect needs an edit that changes something and at least one control. Set alpha, and give seeds."
        )
    base = measure([])
    nulls = [measure(one) - base for one in control_edits(wanted, seeds)]
    return EffectWithControls(measure(wanted) - base, torch.tensor(nulls, dtype=torch.float64))
