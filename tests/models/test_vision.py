"""Image encoder: same numbers as transformers in batches of every size, probed like a language model."""

from pathlib import Path

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.metrics.separability import auroc
from ontogeny.models import loading, vision
from ontogeny.models.hooks import write_hooks
from ontogeny.models.model import attention_output_bias, head_contributions, load_model
from ontogeny.probes import logistic
from ontogeny.sites import Site
from tests.helpers.command_line import Say
from tests.helpers.planted_lineages import rows, write

PIXELS = torch.randn(7, 3, 16, 16, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def model(tiny):
    return vision.load_image_model(tiny("vit"))


@pytest.mark.parametrize("batch", [1, 3, 100])
@pytest.mark.parametrize("pool", ["first", "mean"])
def test_capture_matches_transformers(model, batch: int, pool: vision.ImagePooling) -> None:
    with torch.no_grad():
        theirs = model.network(pixel_values=PIXELS, output_hidden_states=True).hidden_states
    found = vision.capture_images(model, PIXELS, model.sites("resid,mlp,head"), pool=pool, batch=batch)
    for layer in range(model.layers + 1):
        expected = theirs[layer][:, 0] if pool == "first" else theirs[layer][:, 1:].mean(1)
        torch.testing.assert_close(found[Site("resid", layer)], expected, rtol=1e-5, atol=1e-6)
    heads = torch.cat([found[Site("head", 2, head)] for head in range(model.heads)], 1)
    attn = vision.capture_images(model, PIXELS, model.sites("attn.2"), pool=pool)[Site("attn", 2)]
    with torch.no_grad():
        through = head_contributions(model, 2, heads[:, None]).sum(-2)[:, 0] + attention_output_bias(model, 2)
    torch.testing.assert_close(through, attn, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(theirs[1][:, 0], theirs[1][:, 1:].mean(1), rtol=1e-2)  # the two rules differ


def test_write_changes_later_layers_only(model) -> None:
    before = vision.capture_images(model, PIXELS, model.sites("resid"))
    with write_hooks(model, Site("resid", 1), torch.zeros_like):
        after = vision.capture_images(model, PIXELS, model.sites("resid"))
    assert torch.equal(before[Site("resid", 0)], after[Site("resid", 0)])
    assert not after[Site("resid", 1)].any()
    assert not torch.equal(before[Site("resid", 2)], after[Site("resid", 2)])


def test_probe_reads_a_concept_of_images(model) -> None:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randn(160, 3, 16, 16, generator=draw)
    y = torch.arange(160) % 2 == 0
    pixels[y, :, 4:8, 4:8] += 2.0  # a bright patch
    found = vision.capture_images(model, pixels, model.sites("resid"), pool="mean")
    x = torch.stack([found[site] for site in model.sites("resid")])
    train, test = torch.arange(160) < 110, torch.arange(160) >= 110
    groups = torch.arange(160)
    for target, works in ((y, True), (torch.randint(2, (160,), generator=draw).bool(), False)):
        fit = logistic.fit(x[:, train], target[train], groups=groups[train])
        score = auroc(fit.scores(x[:, test])[..., 0], target[test])
        assert bool((score > 0.85).all()) == works
        assert bool((score < 0.75).all()) != works


def test_untrained_model_has_other_weights(model, tiny) -> None:
    other = vision.untrained_image_model(tiny("vit"), seed=3)
    sites = model.sites("resid.2")
    assert not torch.allclose(
        vision.capture_images(other, PIXELS, sites)[sites[0]], vision.capture_images(model, PIXELS, sites)[sites[0]]
    )


def test_rejects_invalid_input_in_one_line(model, tiny) -> None:
    with pytest.raises(BadInput, match=r"images of shape \[3, 16, 16\], got \[3, 8, 8\]"):
        vision.capture_images(model, PIXELS[:, :, :8, :8], model.sites("resid"))
    with pytest.raises(BadInput, match="no pooling called 'last'"):
        vision.capture_images(model, PIXELS, model.sites("resid"), pool="last")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="gpt2 reads texts, not images"):
        vision.load_image_model(tiny("gpt2"))
    with pytest.raises(BadInput, match="gpt2 reads texts, not images"):
        vision.capture_images(load_model(tiny("gpt2")), PIXELS, model.sites("resid"))
    with pytest.raises(BadInput, match="vit reads images and has no tokenizer"):
        model.tokenizer("a text")


def test_trace_rejects_image_model_before_its_weights_are_read(
    tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    folder = tiny("vit")
    monkeypatch.setattr(loading, "load_network", lambda *_: pytest.fail("weights were read"))
    concept = write(tmp_path / "planted.csv", rows(characters=30))
    code, out, err = say("trace", folder, "-c", concept, "-o", tmp_path / "out", "--quiet")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "vit reads images and has no tokenizer, so texts cannot be traced through it" in err
    assert not (tmp_path / "out").exists()
