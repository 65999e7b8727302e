"""Diffusion models: scenes with exact labels, activations and edits of any UNet of diffusers, probes against closed forms."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.linear_model import LinearRegression

from ontogeny.diffusion import (
    Denoiser,
    best_threshold,
    block_activations,
    denoise,
    depth_error,
    dice,
    fit_spatial_probe,
    make_scenes,
    open_denoiser,
    pixel_rank_correlation,
    push_at_random,
    push_to_target,
    read_scenes,
)
from ontogeny.errors import BadInput


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), side=st.sampled_from([12, 16, 32]), shapes=st.integers(1, 4))
def test_labels_of_painted_scenes_are_read_back_exactly(seed: int, side: int, shapes: int) -> None:
    scenes = make_scenes(4, side=side, most_shapes=shapes, seed=seed)
    read = read_scenes(scenes.images)
    assert torch.equal(read.mask, scenes.mask)
    assert (read.depth - scenes.depth).abs().max() < 1e-5
    assert 0 < scenes.mask.float().mean() < 1
    assert scenes.images.abs().max() <= 1


def test_nearer_shapes_hide_farther_ones() -> None:
    alone, more = (make_scenes(200, most_shapes=n, seed=3) for n in (1, 4))
    assert all(len(depth.unique()) <= 2 for depth in alone.depth)
    assert max(len(depth.unique()) for depth in more.depth) >= 4


def tiny_pixel(seed: int = 0):
    diffusers = pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
    torch.manual_seed(seed)
    kinds = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    sizes = {
        "sample_size": 8,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "attention_head_dim": 4,
    }
    return diffusers.UNet2DModel(in_channels=3, out_channels=3, **kinds, **sizes).eval(), diffusers.DDIMScheduler(
        num_train_timesteps=50
    )


def test_reading_changes_nothing_and_edits_are_followed() -> None:
    unet, scheduler = tiny_pixel()
    denoiser, start = Denoiser(unet, scheduler), torch.randn(2, 3, 8, 8)
    assert denoiser.blocks == ("down.0", "down.1", "mid", "up.0", "up.1")
    plain, read = denoise(denoiser, start, steps=3), denoise(denoiser, start, steps=3, read=denoiser.blocks)
    assert torch.equal(plain.images, read.images)
    assert set(read.activations) == {(step, name) for step in range(3) for name in denoiser.blocks}
    scheduler.set_timesteps(3)
    out = unet.down_blocks[0](
        unet.conv_in(start), unet.time_embedding(unet.time_proj(scheduler.timesteps[:1].expand(2)))
    )[0]
    assert torch.allclose(read.activations[0, "down.0"], out, atol=1e-6)
    again = block_activations(denoiser, read.inputs, ["mid"])
    assert all(torch.equal(again[step, "mid"], read.activations[step, "mid"]) for step in range(3))
    for name in denoiser.blocks:
        kept = denoise(denoiser, start, steps=3, edits={(1, name): lambda x: x})
        assert torch.equal(kept.images, plain.images), name
        moved = denoise(denoiser, start, steps=3, read=["up.1"], edits={(1, name): lambda x: x + 1})
        assert not torch.allclose(moved.images, plain.images), name
        assert torch.equal(moved.activations[0, "up.1"], read.activations[0, "up.1"])
    assert not any(module._forward_hooks for module in unet.modules())


def test_an_edit_on_the_way_down_reaches_the_residual_too() -> None:
    """What goes on from `down.0` is seen by the block below and, as a residual, by the block above: with both at zero both see zero."""
    unet, scheduler = tiny_pixel()
    below, handed = [], []
    unet.down_blocks[1].register_forward_pre_hook(
        lambda _, args, given: below.append(given["hidden_states"]), with_kwargs=True
    )
    unet.up_blocks[0].register_forward_pre_hook(lambda _, args, given: handed.extend(args[1]), with_kwargs=True)
    denoise(Denoiser(unet, scheduler), torch.randn(1, 3, 8, 8), steps=1, edits={(0, "down.0"): torch.zeros_like})
    assert not below[0].any()
    assert [bool(residual.any()) for residual in handed] == [False, True]


def test_pipelines_on_disk_pixel_and_latent(tmp_path: Path) -> None:
    unet, scheduler = tiny_pixel()
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    latent = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8, attention_head_dim=2,
    )  # fmt: skip
    words = {"encoder_hidden_states": torch.randn(2, 5, 8)}
    for name, net, channels, condition in (("pixel", unet, 3, {}), ("latent", latent, 4, words)):
        net.save_pretrained(tmp_path / name / "unet")
        scheduler.save_pretrained(tmp_path / name / "scheduler")
        index = {
            "_class_name": "Any",
            "unet": ["diffusers", type(net).__name__],
            "scheduler": ["diffusers", "DDIMScheduler"],
        }
        (tmp_path / name / "model_index.json").write_text(json.dumps(index))
        start = torch.randn(2, channels, 8, 8)
        opened = open_denoiser(tmp_path / name, **condition)
        own = denoise(Denoiser(net.eval(), scheduler, condition), start, steps=2, read=["mid"])
        read = denoise(opened, start, steps=2, read=["mid"])
        assert torch.allclose(own.images, read.images, atol=1e-5)
        assert read.activations[1, "mid"].shape[:2] == (2, 16)
    for wrong in ("missing", "pixel/unet"):
        with pytest.raises(BadInput, match="must be a pipeline of diffusers"):
            open_denoiser(tmp_path / wrong)
    with pytest.raises(BadInput, match="did you mean mid"):
        denoise(opened, start, steps=2, edits={(0, "mud"): lambda x: x})
    with pytest.raises(BadInput, match="between 0 and 1, got 2"):
        denoise(opened, start, steps=2, edits={(2, "mid"): lambda x: x})
    with pytest.raises(BadInput, match="`steps` must be at least 1"):
        denoise(opened, start, steps=0)


def test_probe_is_least_squares_on_the_means_of_cells() -> None:
    x, target = torch.randn(20, 5, 4, 4), torch.rand(20, 8, 8)
    probe = fit_spatial_probe(x, target)
    cells = target.reshape(20, 4, 2, 4, 2).mean((2, 4)).reshape(-1)
    known = LinearRegression().fit(x.movedim(1, -1).reshape(-1, 5).numpy(), cells.numpy())
    assert np.allclose(probe.weight.numpy(), known.coef_, atol=2e-3)
    read = probe.read(x, 8)
    assert read.shape == target.shape
    assert torch.equal(read[:, 0, 0], read[:, 1, 1])
    with pytest.raises(BadInput, match="blocks no larger"):
        fit_spatial_probe(torch.randn(2, 3, 16, 16), torch.rand(2, 8, 8))


def test_push_reaches_the_target_within_its_bound() -> None:
    x, target = torch.randn(6, 5, 4, 4), (torch.rand(6, 8, 8) > 0.5).float()
    probe = fit_spatial_probe(x, torch.rand(6, 8, 8))
    free, bound = push_to_target(probe, target, bound=1e6), push_to_target(probe, target, bound=0.1)
    cells = target.reshape(6, 4, 2, 4, 2).mean((2, 4))
    assert torch.allclose(probe.read(free(x), 4), cells, atol=1e-3)
    length = (bound(x) - x).flatten(1).norm(dim=1)
    assert (length <= 0.1 * x.flatten(1).norm(dim=1) * (1 + 1e-5)).all()
    assert (probe.read(bound(x), 4) - cells).square().mean() < (probe.read(x, 4) - cells).square().mean()
    twice = push_to_target(probe, target, strength=2.0, bound=1e6)(x)
    assert torch.allclose(twice - x, 2 * (free(x) - x), atol=1e-4)
    control = push_at_random(bound, seed=1)(x)
    assert torch.allclose((control - x).norm(dim=1), (bound(x) - x).norm(dim=1), atol=1e-5)
    for wrong in (0.0, float("nan")):
        with pytest.raises(BadInput, match="`bound` must be a finite share above 0"):
            push_to_target(probe, target, bound=wrong)


def test_scores_equal_their_definitions() -> None:
    a, b = torch.rand(3, 6, 6) > 0.5, torch.rand(3, 6, 6) > 0.5
    one = [2 * int((x & y).sum()) / int(x.sum() + y.sum()) for x, y in zip(a, b, strict=True)]
    assert dice(a, b).tolist() == pytest.approx(one)
    assert dice(a & False, b & False).isnan().all()
    rare = torch.rand(30, 6, 6) < 0.1
    values = 0.1 * rare + 0.02 * torch.randn(30, 6, 6)  # least squares of a rare mask stays below a half
    assert not (values > 0.5).any()
    assert dice(values > best_threshold(values, rare), rare).nanmean() > 0.9
    x, y = torch.randn(3, 6, 6), torch.randn(3, 6, 6).round()
    known = [spearmanr(p.flatten(), q.flatten())[0] for p, q in zip(x, y, strict=True)]
    assert pixel_rank_correlation(x, y).tolist() == pytest.approx(known, abs=1e-5)
    assert pixel_rank_correlation(x, torch.zeros_like(x)).isnan().all()
    assert depth_error(x, y).tolist() == pytest.approx(
        [float(((p - q) ** 2).mean() ** 0.5) for p, q in zip(x, y, strict=True)]
    )


def test_refuses_empty_scenes_and_other_networks() -> None:
    with pytest.raises(BadInput, match="at least one image of 8 pixels"):
        make_scenes(0)
    with pytest.raises(BadInput, match="must be a UNet of diffusers, got Linear"):
        Denoiser(torch.nn.Linear(2, 2), None).blocks  # noqa: B018
