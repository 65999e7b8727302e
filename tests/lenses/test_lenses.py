"""Lenses: the logit lens is transformers' own head on its hidden states; fitted lenses are exact where the rest of a model is affine."""

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.lenses import (
    TextStreams,
    fit_jacobian_lens,
    fit_tuned_lens,
    lens_logits,
    logit_lens,
    read_in_tokens,
    read_streams,
    score_lens,
    unembedding_rank,
)
from ontogeny.models.model import load_model

TEXTS = [
    f"{word} {number} of the {word}s stood"
    for number, word in enumerate(["ship", "tree", "song", "lamp", "road", "king"] * 4)
]


@pytest.fixture(scope="module")
def model(tiny):
    return load_model(tiny("llama"))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "olmoe"])
def test_logit_lens_is_the_head_on_the_hidden_states_of_transformers(family, tiny):
    model = load_model(tiny(family))
    ids = torch.tensor([[5, 17, 40, 9, 201, 33]])
    with torch.no_grad():
        theirs = model.network(ids, output_hidden_states=True)
        for layer in range(model.layers):
            ours = lens_logits(model, theirs.hidden_states[layer], layer)
            norm = model.network.get_submodule(model.architecture.final_norm)
            head = model.network.get_output_embeddings()(norm(theirs.hidden_states[layer]))
            cap = getattr(model.network.config, "final_logit_softcapping", None)
            assert torch.equal(ours, torch.tanh(head / cap) * cap if cap else head)
        streams = read_streams(model, [model.tokenizer.decode(ids[0]), "another text"])
    own = list(model.tokenizer(model.tokenizer.decode(ids[0])).input_ids)
    with torch.no_grad():
        logits = model.network(torch.tensor([own])).logits[0, 1:]
    last = lens_logits(model, streams.of_texts([0]).states[-1], model.layers)
    torch.testing.assert_close(last, logits, rtol=1e-4, atol=1e-5)
    scores = score_lens(model, streams, logit_lens())
    assert scores.agrees[-1].eq(1).all()
    assert float(scores.divergence[-1].max()) < 1e-5


def test_streams_leave_out_first_tokens_and_know_the_next(model):
    streams = read_streams(model, ["abcd", "xy"], most_tokens=4)
    ids = [list(model.tokenizer(text).input_ids)[:4] for text in ("abcd", "xy")]
    assert streams.text.tolist() == [0] * (len(ids[0]) - 1) + [1] * (len(ids[1]) - 1)
    assert streams.following.tolist() == [*ids[0][2:], -1, *ids[1][2:], -1]
    scores = score_lens(model, streams, logit_lens())
    assert scores.surprise.isnan().sum(1).tolist() == [2] * (model.layers + 1)
    with torch.no_grad():
        likely = model.network(torch.tensor([ids[0]])).logits[0].log_softmax(-1)
    assert float(scores.surprise[-1, 0]) == pytest.approx(-float(likely[1, ids[0][2]]), abs=1e-4)


def _planted(model, seed: int = 0) -> tuple[TextStreams, torch.Tensor, torch.Tensor]:
    """States of a layer that an affine map takes to the last one."""
    draw = torch.Generator().manual_seed(seed)
    first = torch.randn(600, model.d, generator=draw)
    weight = torch.randn(model.d, model.d, generator=draw) / model.d**0.5
    shift = torch.randn(model.d, generator=draw)
    states = torch.stack([first, first @ weight + shift])
    return TextStreams(states, torch.arange(600) // 20, torch.full((600,), 7)), weight, shift


def test_tuned_lens_finds_a_planted_affine_map_and_reads_new_texts_by_it(model):
    small = _first_layers(model)
    streams, weight, _ = _planted(small)
    lens = fit_tuned_lens(small, streams.of_texts(range(20)), steps=20)
    torch.testing.assert_close(lens.maps[0], weight, rtol=0, atol=0.02)
    new = streams.of_texts(range(20, 30))
    tuned, plain = score_lens(small, new, lens), score_lens(small, new, logit_lens())
    assert float(tuned.divergence[0].mean()) < 1e-3 < 0.1 * float(plain.divergence[0].mean())
    assert float(tuned.agrees[0].mean()) > 0.95


def _first_layers(model):
    from dataclasses import replace

    return replace(model, layers=1)


def test_tuned_lens_on_few_texts_falls_back_to_the_identity(model):
    """Twenty tokens cannot tell 32 dimensions: the fit must not read its held-out texts worse than no fit."""
    small = _first_layers(model)
    streams, *_ = _planted(small)
    identity = TextStreams(streams.states[:1].repeat(2, 1, 1), streams.text, streams.following).of_texts([0, 1])
    lens = fit_tuned_lens(small, identity, steps=20)
    assert torch.equal(lens.maps[0], torch.eye(small.d))


def test_jacobian_lens_is_the_derivative_by_finite_differences(tiny):
    from ontogeny.models.hooks import read_hooks, write_hooks
    from ontogeny.sites import Site

    model = load_model(tiny("gpt2"))
    texts = ["abcdef", "uvwxyz"]
    lens = fit_jacobian_lens(model, texts)
    torch.testing.assert_close(lens.maps[-1], torch.eye(model.d), rtol=0, atol=1e-5)
    direction = torch.randn(model.d, generator=torch.Generator().manual_seed(0))

    def last(text: str, by: float) -> torch.Tensor:
        seen = {}

        def pushed(h: torch.Tensor) -> torch.Tensor:
            h = h.clone()
            h[:, -1] += by * direction
            return h

        ids = torch.tensor([model.tokenizer(text).input_ids])
        hook = lambda part, layer, value: seen.__setitem__(layer, value[0, -1].clone())  # noqa: E731
        with torch.no_grad(), write_hooks(model, Site("resid", 1), pushed), read_hooks(model, [("resid", 2)], hook):
            model.network(ids)
        return seen[2]

    slopes = torch.stack([(last(text, 1e-2) - last(text, -1e-2)) / 2e-2 for text in texts]).mean(0)
    torch.testing.assert_close(direction @ lens.maps[1], slopes, rtol=2e-2, atol=2e-3)
    streams = read_streams(model, texts)
    ends = [int((streams.text == text).nonzero()[-1]) for text in (0, 1)]
    mean = lens.to_last_layer(1, streams.states[1, ends]).mean(0)
    torch.testing.assert_close(mean, streams.states[2, ends].mean(0), rtol=0, atol=0.05)


def test_direction_reads_as_the_tokens_that_it_promotes(model):
    rows = model.network.get_output_embeddings().weight.detach()
    gain = model.network.get_submodule(model.architecture.final_norm).weight.detach()
    found = read_in_tokens(model, rows[70] / gain, top=3)
    assert found.promoted[0][0] == model.tokenizer.convert_ids_to_tokens(70)
    assert len(model.tokenizer) < len(rows)  # the others are padding, and no token
    scores = (rows @ rows[70])[: len(model.tokenizer)]
    assert found.promoted[0][1] == pytest.approx(float(scores.max()), rel=1e-3)
    assert found.suppressed[0][1] == pytest.approx(float(scores.min()), rel=1e-3)
    assert found.note == ""
    only = read_in_tokens(model, rows[70] / gain, top=2, tokens=[3, 4, 70])
    assert {name for name, _ in only.promoted + only.suppressed} <= set(
        model.tokenizer.convert_ids_to_tokens([3, 4, 70])
    )
    for wrong in (torch.zeros(model.d), torch.ones(model.d + 1)):
        with pytest.raises(BadInput, match="`direction` must be"):
            read_in_tokens(model, wrong)


def test_degenerate_unembedding_is_said(tiny):
    model = load_model(tiny("gpt2"))
    assert not unembedding_rank(model, range(40, 80)).is_degenerate
    weight = model.network.get_output_embeddings().weight
    with torch.no_grad():
        axis = torch.randn(model.d, generator=torch.Generator().manual_seed(0))
        axis -= axis.mean()
        weight.copy_(torch.linspace(-1, 1, len(weight))[:, None] * axis + 1e-3 * weight)
    rank = unembedding_rank(model, range(40, 80))
    assert rank.is_degenerate
    assert rank.effective_rank < 1.5
    assert "degenerate" in read_in_tokens(model, torch.randn(model.d)).note


def test_encoder_has_no_lens(tiny):
    with pytest.raises(BadInput, match="needs a causal language model"):
        read_streams(load_model(tiny("bert")), ["a b", "c d"])
