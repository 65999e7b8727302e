"""Prefix sharing: shared prefixes run once and reads are unchanged."""

import pytest
import torch

from ontogeny.activations.capture import capture_workload
from ontogeny.activations.prefix_sharing import MIN_SHARED_TOKENS, group_by_prefix
from ontogeny.activations.workload import build_workload
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.data.positions import Position
from ontogeny.models.model import load_model

SHOTS = "Q: Is bread blue? A: no. Q: Is snow white? A: yes. "
SITES = ("resid", "attn", "mlp", "head", "neuron")


@pytest.fixture(params=["gpt_neox", "llama", "gpt2"])
def model(request, tiny):
    return load_model(tiny(request.param))


def concept(position: str = "last", *, shots: str = SHOTS, answers: int = 0) -> Concept:
    things = (
        "the moon",
        "a lighthouse",
        "bread",
        "a long river",
        "x",
        "seven",
        "a hat",
        "rain",
        "a cup",
        "the sea",
        "Ada",
        "wool",
    )
    examples = tuple(Example(f"{shots}Q: Is {thing} old?", i % 2 == 0, f"g{i}") for i, thing in enumerate(things))
    asked = tuple(
        Answer(f"{e.text} A:", " yes" if e.target else " no", " no" if e.target else " yes", e.group)
        for e in examples[:answers]
    )
    return Concept("old", examples, position=Position.parse(position), answers=asked)


def both(model, concept, sites=SITES):
    work, _ = build_workload([concept], model.tokenizer, model.context)
    with_it = capture_workload(model, work, model.sites(sites), share_prefixes=True)
    return work, with_it, capture_workload(model, work, model.sites(sites))


@pytest.mark.parametrize("answers", [0, 4])
@pytest.mark.parametrize("sites", [SITES, ("resid.1", "head.1")])
def test_reads_are_unchanged(model, answers, sites):
    work, shared, plain = both(model, concept(answers=answers), sites)
    for part in plain.parts:
        torch.testing.assert_close(shared.parts[part], plain.parts[part], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(shared.inputs, plain.inputs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(shared.answers, plain.answers, rtol=1e-5, atol=1e-5)
    assert shared.counts.forwards == plain.counts.forwards == len(work.sequences)
    assert shared.counts.real_tokens == plain.counts.real_tokens == work.tokens
    assert shared.counts.tokens < 0.5 * plain.counts.tokens


def test_fully_read_prefix_is_not_shared(model):
    work, shared, plain = both(model, concept("mean"))
    assert group_by_prefix(work)[0] == []
    assert shared.counts.tokens == plain.counts.tokens


def test_short_prefix_is_not_shared(model):
    work, _ = build_workload([concept(shots="")], model.tokenizer, model.context)
    assert group_by_prefix(work)[0] == []


def test_each_sequence_is_in_at_most_one_group(model):
    work, _ = build_workload(
        [concept(answers=4), concept(shots="Once upon a time there was a cat. ")], model.tokenizer, 128
    )
    groups, alone = group_by_prefix(work)
    assert sorted([*alone, *(s for group in groups for s in group.sequences)]) == list(range(len(work.sequences)))
    for group in groups:
        assert len(group.prefix) >= MIN_SHARED_TOKENS
        for s, end in zip(group.sequences, group.suffixes.sequences, strict=True):
            assert group.prefix + end == work.sequences[s]
