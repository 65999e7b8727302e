"""Ablation of head sets: the heads behind a score stand out from random sets, which have their size and are never the set itself."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from ontogeny.patching.head_sets import ablate_head_set, random_head_sets
from ontogeny.steering.steer import Edit, steer
from tests.helpers.tiny_models import outspoken

IDS = torch.tensor([[5, 17, 40, 9, 201, 33], [8, 8, 120, 64, 77, 250], [61, 3, 9, 99, 14, 7]])


def one_head_score(model: Model) -> Callable[[list[Edit]], torch.Tensor]:
    """What head 1.2 writes into the stream at the last token: ablations of other heads of its layer do not change it."""

    def score(edits: list[Edit]) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        inside = slice(2 * model.d_head, 3 * model.d_head)
        with torch.no_grad(), steer(model, edits, prompts=[6] * 3):
            projection = model.part(1, model.architecture.heads_out)
            hook = projection.register_forward_pre_hook(
                lambda _, args: seen.append(args[0][:, -1, inside].norm(dim=-1))
            )
            model.network(IDS, use_cache=False)
            hook.remove()
        return seen[0]

    return score


def test_the_head_behind_a_score_stands_out(tiny: Callable[..., Path]) -> None:
    model = outspoken(tiny("gpt_neox"))
    score = one_head_score(model)
    right = ablate_head_set(model, [(1, 2)], score, sets=40)
    assert torch.allclose(right.change, -score([]))
    assert (right.null == 0).all()
    assert len(right.null) == 7, "of eight heads, every other one"
    assert right.every
    assert right.p == pytest.approx(1 / 8)
    wrong = ablate_head_set(model, [(1, 1)], score, sets=40)
    assert wrong.effect == 0
    assert wrong.p > 0.1
    assert wrong.null_range[0] <= 0


def test_random_sets_have_the_size_and_the_layers(tiny: Callable[..., Path]) -> None:
    model, own = outspoken(tiny("gpt_neox")), [(2, 1), (1, 0), (2, 3)]
    for same_layers in (False, True):
        sets = random_head_sets(model, own, 30, same_layers=same_layers, seed=1)
        assert all(len(set(one)) == 3 and one != tuple(sorted(own)) for one in sets)
        assert len(set(sets)) == (30 if not same_layers else 23), (
            "56 sets of three; 24 with one head in the first block and two in the second"
        )
        if same_layers:
            assert all(sorted(layer for layer, _ in one) == [1, 2, 2] for one in sets)
        assert sets == random_head_sets(model, own, 30, same_layers=same_layers, seed=1)


def test_wrong_head_sets_are_refused(tiny: Callable[..., Path]) -> None:
    model = outspoken(tiny("gpt_neox"))
    every = [(layer, head) for layer in (1, 2) for head in range(4)]
    for heads, options, words in (
        ([], {}, "at least one, got"),
        ([(1, 0), (1, 0)], {}, "different heads"),
        ([(3, 0)], {}, "heads of 2 layers"),
        ([(1, 4)], {}, r"got \(1, 4\)"),
        ([(1, 0)], {"sets": 1}, "`sets` must be at least 2"),
        (every, {}, "this model has none"),
        (every[:4], {"same_layers": True}, "this model has none"),
    ):
        with pytest.raises(BadInput, match=words):
            ablate_head_set(model, heads, lambda edits: torch.zeros(2), **options)
