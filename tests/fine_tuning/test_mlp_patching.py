"""Exchanged MLP outputs: those of the model itself change nothing, those of a model that differs in one MLP make the two models one."""

from functools import partial

import torch

from ontogeny.fine_tuning.mlp_patching import mlp_outputs, moved_as_far, patched_mlps
from ontogeny.models.model import Model, load_model


def logits(model: Model, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = model.network(ids, use_cache=False).logits
    return output


def test_outputs_of_the_only_changed_mlp_are_the_change(tiny) -> None:
    base, tuned = load_model(tiny("gpt2")), load_model(tiny("gpt2"))
    with torch.no_grad():
        tuned.network.transformer.h[0].mlp.c_proj.weight.normal_()
    ids = torch.randint(5, 50, (3, 6), generator=torch.Generator().manual_seed(0))
    own, before = mlp_outputs(base, partial(logits, base, ids))
    other, after = mlp_outputs(tuned, partial(logits, tuned, ids))
    assert not torch.allclose(before, after)
    for outputs, expected in (({}, before), (own, before), ({1: other[1]}, after), (other, after)):
        with patched_mlps(base, outputs):
            torch.testing.assert_close(logits(base, ids), expected)
    assert logits(base, ids).equal(before), "the hooks are gone"
    moved = moved_as_far(own[1], other[1], torch.Generator().manual_seed(0))
    torch.testing.assert_close((moved - own[1]).norm(dim=-1), (other[1] - own[1]).norm(dim=-1))
