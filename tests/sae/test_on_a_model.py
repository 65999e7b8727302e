"""Sparse autoencoders on a model: what is read, which tokens are changed, and the scores of extreme reconstructions."""

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.models.model import Model, load_model
from ontogeny.sae import (
    ClampLatent,
    Reconstruct,
    SaeBudget,
    SaeSettings,
    ScaleLatent,
    SparseAutoencoder,
    chunk_activations,
    read_site_tokens,
    score_autoencoders,
    token_rows,
    train_autoencoders,
)
from ontogeny.sae.causal import CausalTokens, causal_loss, causal_score
from ontogeny.sae.evaluation import token_losses
from ontogeny.sites import Site

TEXTS = [
    f"{word} stood {'very ' * (i % 4)}near {word}" for i, word in enumerate(["ship", "tree", "song", "lamp", "a"] * 4)
]
SITE = Site("resid", 1)


@pytest.fixture(scope="module")
def model(tiny) -> Model:
    return load_model(tiny("gpt_neox", seed=3))


def perfect(width: int) -> SparseAutoencoder:
    """Reconstructs everything: two latents for each dimension."""
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    return SparseAutoencoder("relu", both.T.contiguous(), torch.zeros(2 * width), both, torch.zeros(width))


def nothing(width: int) -> SparseAutoencoder:
    zeros = torch.zeros(4, width)
    return SparseAutoencoder("relu", zeros.T.contiguous(), torch.zeros(4), zeros, torch.zeros(width))


@pytest.mark.parametrize("site", ["resid.0", "resid.1", "resid.2", "mlp.1", "head.2.3"])
def test_reads_each_token_but_the_first(model: Model, site: str) -> None:
    rows, at = token_rows(model, TEXTS, most_tokens=14), Site.parse(site)
    values = read_site_tokens(model, rows, at)
    assert len(values) == rows.tokens == len(rows.owner)
    if at.part == "resid" and at.layer < 2:
        with torch.no_grad():
            whole = [
                model.network(row[None], output_hidden_states=True).hidden_states[at.layer][0, 1:] for row in rows.ids
            ]
        torch.testing.assert_close(values, torch.cat(whole), rtol=1e-4, atol=1e-5)
    chunks = chunk_activations(model, rows, at, most=40)
    assert len(chunks.sizes) > 2
    torch.testing.assert_close(
        torch.cat([chunks.read(i) for i in range(len(chunks.sizes))]), values, rtol=1e-4, atol=1e-5
    )


def test_loss_is_recovered_by_a_perfect_and_not_by_an_empty_autoencoder(model: Model) -> None:
    rows = token_rows(model, TEXTS)
    whole, empty = score_autoencoders(model, rows, SITE, [perfect(model.d), nothing(model.d)])
    assert whole.values["loss_recovered"][0] == pytest.approx(1, abs=1e-4)
    assert whole.values["explained"][0] == pytest.approx(1)
    assert whole.values["l0"][0] == pytest.approx(model.d)
    assert empty.values["loss_recovered"][0] == pytest.approx(0, abs=1e-6)
    assert empty.values["l0"][0] == 0
    assert whole.dead < 0.5
    assert empty.dead == 1


def test_an_edit_changes_no_token_before_the_first_that_counts(model: Model) -> None:
    rows = token_rows(model, TEXTS)
    clean = token_losses(model, rows)
    assert torch.equal(clean.isnan(), torch.cat([torch.arange(len(row) - 1) == len(row) - 2 for row in rows.ids]))
    same = token_losses(model, rows, SITE, lambda h: h)
    torch.testing.assert_close(same, clean, rtol=0, atol=0, equal_nan=True)


def test_latents_are_clamped_and_scaled_along_their_direction(model: Model) -> None:
    x = read_site_tokens(model, token_rows(model, TEXTS), SITE)
    (own,) = train_autoencoders(
        chunk_activations(model, token_rows(model, TEXTS), SITE),
        [SaeSettings("topk", 32, k=4)],
        SaeBudget(steps=20, batch=64),
    )
    latent = int((own.encode(x) > 0).sum(0).argmax())
    z = own.encode(x)[:, latent]
    torch.testing.assert_close(ClampLatent(own, latent, 3.0)(x), x + (3.0 - z)[:, None] * own.decoder[latent])
    assert torch.equal(ScaleLatent(own, latent, 1.0)(x), x)
    removed = ScaleLatent(own, latent, 0.0)(x)
    assert torch.equal(removed[z == 0], x[z == 0])
    torch.testing.assert_close((x - removed).norm(dim=1), z)
    null = ScaleLatent(own, latent, 0.0).null(1)(x)
    torch.testing.assert_close((x - null).norm(dim=1), z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(Reconstruct(own)(x), own.reconstruct(x))
    with pytest.raises(BadInput, match="`latent` must be from 0 to 31, got 32"):
        ClampLatent(own, 32, 0.0)
    with pytest.raises(BadInput, match="must be 32 wide"):
        own.encode(torch.zeros(2, 5))


def test_causal_patch_is_written_at_the_tokens_own_place_only(model: Model) -> None:
    tokens = CausalTokens.of(model, token_rows(model, TEXTS), SITE)
    chosen = torch.tensor([0, 7, 30])
    same = tokens.patched_logits(chosen, tokens.values(chosen))
    torch.testing.assert_close(same, tokens.clean_logits(chosen), rtol=1e-4, atol=1e-5)
    moved = tokens.patched_logits(chosen, tokens.values(chosen).flip(1))
    assert ((moved - same).abs().amax(1) > 1e-4).all()


def test_causal_loss_brings_logits_nearer_to_their_target(model: Model) -> None:
    rows = token_rows(model, TEXTS)
    tokens, chunks = CausalTokens.of(model, rows, SITE), chunk_activations(model, rows, SITE)
    members, budget = [SaeSettings("topk", 32, k=8, seed=s) for s in (0, 1)], SaeBudget(steps=60, batch=64)
    plain = train_autoencoders(chunks, members, budget)
    causal = train_autoencoders(chunks, members, budget, extra=causal_loss(tokens, 30.0, rows=8, nearest_of=512))
    score = [sum(causal_score(tokens, own, rows=64) for own in both) / 2 for both in (plain, causal)]
    assert score[1] > score[0]
    with pytest.raises(BadInput, match="`weight`"):
        causal_loss(tokens, -1.0)


def test_rejects_models_and_texts_without_tokens_to_read(tiny, model: Model) -> None:
    both_ways = load_model(tiny("bert"))
    with pytest.raises(BadInput, match="causal language model"):
        read_site_tokens(both_ways, token_rows(both_ways, TEXTS), SITE)
    with pytest.raises(BadInput, match="tokens after the first"):
        token_rows(model, ["a", ""])
