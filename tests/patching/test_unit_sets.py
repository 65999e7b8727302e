"""Ablation of neurons: the neuron behind a score stands out from random ones of its layer, in two families."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.models.hooks import read_hooks
from ontogeny.models.model import Model
from ontogeny.patching.unit_sets import ablate_unit_set, random_unit_sets, zeroed_units
from ontogeny.steering.steer import Edit, steer
from tests.helpers.tiny_models import outspoken

IDS = torch.tensor([[5, 17, 40, 9, 201, 33], [8, 8, 120, 64, 77, 250], [61, 3, 9, 99, 14, 7]])


def neuron_score(model: Model) -> Callable[[list[Edit]], torch.Tensor]:
    """Size of neurons 2.4 and 2.5 at the last token."""

    def score(edits: list[Edit]) -> torch.Tensor:
        seen: list[torch.Tensor] = []

        def sink(_: str, __: int, value: torch.Tensor) -> None:
            seen.append(value[:, -1, 4:6].abs().sum(-1))

        with torch.no_grad(), steer(model, edits, prompts=[6] * 3), read_hooks(model, [("neuron", 2)], sink):
            model.network(IDS, use_cache=False)
        return seen[0]

    return score


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_the_neurons_behind_a_score_stand_out(family: str, tiny: Callable[..., Path]) -> None:
    model = outspoken(tiny(family))
    score = neuron_score(model)
    right = ablate_unit_set(model, [(2, 4), (1, 7), (2, 5)], score, sets=19)
    assert torch.allclose(score([]) + right.change, torch.zeros(3), atol=1e-6)
    assert right.units == ((1, 7), (2, 4), (2, 5))
    assert right.effect < right.null_range[0]
    assert right.p == pytest.approx(1 / 20)


def test_random_sets_have_as_many_neurons_of_each_layer(tiny: Callable[..., Path]) -> None:
    model, own = outspoken(tiny("llama")), [(2, 4), (1, 7), (2, 5)]
    sets = random_unit_sets(model, own, 20)
    assert all(
        [layer for layer, _ in one] == [1, 2, 2] and len(set(one)) == 3 and not set(one) & set(own) for one in sets
    )
    assert len(set(sets)) > 15
    everything = [(1, unit) for unit in range(48)]
    for call, words in (
        (lambda: zeroed_units(model, []), "at least one, got"),
        (lambda: zeroed_units(model, [(1, 2), (1, 2)]), "different neurons"),
        (lambda: zeroed_units(model, [(3, 2)]), "of 2 layers"),
        (lambda: zeroed_units(model, [(1, 48)]), r"got \(1, 48\)"),
        (lambda: random_unit_sets(model, everything, 5), "name fewer"),
        (lambda: ablate_unit_set(model, own, lambda edits: torch.zeros(2), sets=1), "`sets` must be at least 2"),
    ):
        with pytest.raises(BadInput, match=words):
            call()
