"""Refusal direction: the difference of Hugging Face's hidden states, its ablation, a jackknife interval, and the split of instructions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.errors import BadInput
from ontogeny.models.model import load_model
from ontogeny.steering.bake import bake_edits
from ontogeny.steering.instruction_split import InstructionSplit, count_post_instruction_tokens, split_groups
from ontogeny.steering.refusal_direction import (
    PromptActivations,
    jackknife_cosine,
    read_prompt_activations,
    split_half_cosine,
)
from ontogeny.steering.refusal_effects import refusal_edits
from ontogeny.steering.refusal_prompts import PromptTemplate, RefusalPrompts

HARMFUL = [f"zap number {i:02d} {word}" for i, word in enumerate(("ab", "cd", "ef", "gh", "ij", "kl"))]
HARMLESS = [f"cake number {i:02d} {word}" for i, word in enumerate(("ab", "cd", "ef", "gh", "ij", "kl"))]


def examples(texts):
    return tuple(Example(text, True, text) for text in texts)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_direction_equals_difference_of_hugging_face_hidden_states(tiny, family):
    model = load_model(tiny(family))
    sides = tuple(examples(texts[:6]) for texts in (HARMFUL, HARMLESS))
    seen = read_prompt_activations(model, InstructionSplit(*sides), PromptTemplate("Q {} A:"), layers=[1], positions=2)
    for spot in ((1, -1), (1, -2)):
        means = []
        for side in sides:
            with torch.no_grad():
                each = [
                    model.network(
                        model.tokenizer(f"Q {one.text} A:", return_tensors="pt").input_ids, output_hidden_states=True
                    ).hidden_states[1][0, spot[1]]
                    for one in side
                ]
            means.append(torch.stack(each).double().mean(0))
        assert torch.allclose(seen.difference(spot), means[0] - means[1], atol=1e-6)


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_ablation_equals_orthogonalised_weights(tiny, family):
    """Ablation by hooks and in a copy of the weights gives the same log-odds."""
    model = load_model(tiny(family))
    vector = torch.randn(model.d, generator=torch.Generator().manual_seed(0))
    edits = refusal_edits(model, "ablation", vector, layer=1, dose=1.0)
    given_ = examples(HARMFUL[:5])
    asked, baked = (
        RefusalPrompts.of(m, PromptTemplate("Q {} A:"), given_, ("No", "I can't"))
        for m in (model, bake_edits(model, edits))
    )
    assert torch.allclose(asked.log_odds(edits), baked.log_odds(), atol=1e-4)
    assert not torch.allclose(asked.log_odds(), baked.log_odds(), atol=1e-4)


def test_groups_stay_in_one_part_of_the_split():
    given_ = tuple(Example(f"text {i}", i < 30, f"group {i // 3}") for i in range(60))
    parts = split_groups(Concept("requests", given_), limits=(100, 100, 100), seed=0)
    seen = [{e.group for e in p.all} for p in parts]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert sum(len(p.harmful) for p in parts) == 30
    with pytest.raises(BadInput, match="at least ten"):
        split_groups(Concept("requests", given_[:9] + given_[30:]), limits=(100, 100, 100), seed=0)


def test_post_instruction_tokens_are_the_shared_ending():
    assert count_post_instruction_tokens([torch.tensor([1, 7, 8, 9]), torch.tensor([2, 3, 8, 9])], limit=5) == 2
    assert count_post_instruction_tokens([torch.tensor([1, 7, 8, 9]), torch.tensor([2, 3, 8, 9])], limit=1) == 1
    assert count_post_instruction_tokens([torch.tensor([1, 7]), torch.tensor([2, 3])], limit=5) == 1


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1))
def test_jackknife_interval_contains_the_cosine(seed, turned):
    """Two stages with rotated directions: the interval contains the measured cosine and mostly the true one."""
    generator = torch.Generator().manual_seed(seed)
    d, n = 24, 60
    a = torch.nn.functional.normalize(torch.randn(d, generator=generator), dim=0) * 6
    b = (
        torch.nn.functional.normalize(
            (1 - turned) * a / 6 + turned * torch.randn(d, generator=generator) / d**0.5, dim=0
        )
        * 6
    )
    harmful = torch.arange(n) < n // 2
    reads = [
        PromptActivations(
            (torch.randn(n, d, generator=generator) + harmful[:, None] * v)[None],
            ((1, -1),),
            harmful,
            torch.arange(n) % (n // 2),
        )
        for v in (a, b)
    ]
    value, low, high = jackknife_cosine(reads[0], (1, -1), reads[1], (1, -1))
    assert low < value < high
    assert low >= -1
    assert high <= 1
    assert split_half_cosine(reads[0], (1, -1), times=5) > 0.5
    # Noise shortens a cosine, so the truth is held from above alone: never far under what was measured.
    truth = float(torch.nn.functional.cosine_similarity(a, b, dim=0))
    assert truth > value - 3 * (high - low)
