"""OV scores equal their formula for a gated family, and a planted head comes first in gated and plain ones."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.models.model import Model, load_model, output_weight
from ontogeny.neurons.ov_scores import ov_diagonals, ov_scores
from ontogeny.sites import Site


def test_scores_equal_the_formula(tiny: Callable[..., Path]) -> None:
    model = load_model(tiny("llama"))
    layers, units, head = model.network.model.layers, [(1, 3), (2, 5), (2, 7)], 3
    attention, inside = layers[1].self_attn, slice(head * model.d_head, (head + 1) * model.d_head)
    group = head // 2  # two heads share their values
    values = attention.v_proj.weight[group * model.d_head : (group + 1) * model.d_head]
    with torch.no_grad():
        expected = torch.diag(values.T @ attention.o_proj.weight[:, inside].T)
        assert torch.allclose(ov_diagonals(model)[1, head], expected, atol=1e-6)
        attention.v_proj.weight.mul_(30)
        attention.o_proj.weight.mul_(30)
        own = ov_diagonals(model)[1, head]
        total = 0.0
        for layer, unit in units:
            mlp = layers[layer - 1].mlp
            total += float(
                torch.nn.functional.silu(mlp.gate_proj.weight[unit] @ own) * (mlp.up_proj.weight[unit] @ own)
            )
    assert float(ov_scores(model, units)[1, head]) == pytest.approx(total / 3, rel=1e-4)


@pytest.mark.parametrize("family", ["gpt_neox", "gpt2"])
def test_a_planted_head_comes_first(family: str, tiny: Callable[..., Path]) -> None:
    model = load_model(tiny(family))
    wanted = ov_diagonals(model)[0, 2]
    _excite(model, 2, 5, wanted)
    scores = ov_scores(model, [(2, 5)])
    assert scores.shape == (2, 4)
    assert int(scores.argmax()) == 2, "head 1.2"


def _excite(model: Model, layer: int, unit: int, wanted: torch.Tensor) -> None:
    """Let a neuron be excited by one direction."""
    first = next(m for m in model.part(layer, model.architecture.mlp).modules() if hasattr(m, "weight"))
    with torch.no_grad():
        row = 300 * wanted / wanted.norm()
        if isinstance(first, torch.nn.Linear):
            first.weight[unit] = row
        else:
            first.weight[:, unit] = row


def test_models_and_neurons_without_scores_are_refused(tiny: Callable[..., Path]) -> None:
    model = load_model(tiny("llama"))
    width = len(output_weight(model, Site("mlp", 1)))
    for units, words in (
        ([], "at least one neuron"),
        ([(3, 0)], r"got \(3, 0\)"),
        ([(1, width)], "of 2 layers"),
        ([(0, 1)], "from 1"),
    ):
        with pytest.raises(BadInput, match=words):
            ov_scores(model, units)
    for family, words in (
        ("olmoe", "mixture of experts"),
        ("opt", "must be a module of its own"),
        ("bert", "module of its own|causal"),
    ):
        with pytest.raises(BadInput, match=words):
            ov_scores(load_model(tiny(family)), [(1, 0)])
