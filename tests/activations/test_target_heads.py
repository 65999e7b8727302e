"""Target-attending heads: a head that is made to look at a token is listed, others are not; the null has as many other tokens."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ontogeny.activations.target_heads import TargetAttention, target_attention
from ontogeny.errors import BadInput
from ontogeny.interventions import Reweight
from ontogeny.steering.steer import steer
from tests.helpers.tiny_models import outspoken

GENERATOR = torch.Generator().manual_seed(3)
IDS = [torch.randint(3, 250, (length,), generator=GENERATOR) for length in (12, 9, 15, 11, 10, 13)]
PLACES = [len(row) - 1 for row in IDS]
TARGETS = [torch.isin(torch.arange(len(row)), torch.tensor([2, 4])) for row in IDS]


def test_heads_that_look_at_the_target_are_listed(tiny: Callable[..., Path]) -> None:
    model = outspoken(tiny("llama"))
    rows = [torch.randint(3, 250, (12,), generator=GENERATOR) for _ in range(8)]
    masks = [torch.isin(torch.arange(12), torch.tensor([2, 4])) for _ in rows]
    with steer(model, [("attn.2", Reweight(1e4), masks)], prompts=[12] * 8):
        looking = target_attention(model, rows, masks, [11] * 8)
    assert looking.mass[1].min() > 0.9
    heads = looking.heads(least=0.9)
    assert sorted(heads) == [(2, head) for head in range(4)]
    assert heads == sorted(heads, key=lambda one: -looking.mass[one[0] - 1, one[1]].mean())
    assert looking.heads(least=0.9, most=2) == heads[:2]
    assert TargetAttention(looking.mass, looking.mass).heads() == []


def test_null_tokens_are_as_many_and_never_the_target(tiny: Callable[..., Path]) -> None:
    model = outspoken(tiny("llama"))
    everything = [torch.arange(len(row)) < len(row) for row in IDS]
    read = target_attention(model, IDS, TARGETS, PLACES, draws=3)
    assert not torch.allclose(read.mass, read.null)
    assert (read.mass + read.null <= 1 + 1e-5).all()
    again = target_attention(model, IDS, TARGETS, PLACES, draws=3, batch=1)
    torch.testing.assert_close(again.null, read.null, rtol=1e-4, atol=1e-5)
    for targets, places, words in (
        (everything, PLACES, "must lie before the position"),
        (TARGETS, [0] * 6, "must lie before the position"),
        (TARGETS, [5, 5, 5, 5, 5, 99], "must lie before the position"),
        ([torch.arange(len(row)) < 8 for row in IDS], [8] * 6, "as many other tokens"),
        (TARGETS[:1], PLACES, "at least two texts"),
    ):
        with pytest.raises(BadInput, match=words):
            target_attention(model, IDS, targets, places)
