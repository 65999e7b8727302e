"""Diffusion models: scenes with exact labels, activations and edits of any UNet of diffusers, probes against closed forms."""

import base64
import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.linear_model import LinearRegression

from ontogeny.diffusion import (
    Denoised,
    Denoiser,
    Scenes,
    best_threshold,
    block_activations,
    decode_images,
    denoise,
    depth_error,
    dice,
    fit_scene_probe,
    fit_spatial_probe,
    make_scenes,
    open_denoiser,
    picture_url,
    pixel_rank_correlation,
    push_as_far,
    push_at_random,
    push_to_target,
    read_scenes,
    readability_records,
    start_noise,
)
from ontogeny.errors import BadInput
from ontogeny.views import load_view

_OLD_NUMPY_CALL = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
"""Some schedulers of diffusers convert tensors as numpy 1 did."""


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


def tiny_latent():
    """A UNet for latents with a text, and its autoencoder."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8, attention_head_dim=2,
    )  # fmt: skip
    autoencoder = diffusers.AutoencoderKL(
        block_out_channels=(4, 8), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4, latent_channels=4, sample_size=16,
    )  # fmt: skip
    return unet.eval(), autoencoder.eval()


def save_pipeline(folder: Path, **parts: object) -> Path:
    """A pipeline on disk, as `save_pretrained` of diffusers writes it."""
    for name, part in parts.items():
        part.save_pretrained(folder / name)  # type: ignore[attr-defined]
    library = {name: "transformers" if name in ("tokenizer", "text_encoder") else "diffusers" for name in parts}
    index = {name: [library[name], type(part).__name__] for name, part in parts.items()}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "Any", **index}))
    return folder


def test_pixel_pipeline_on_disk_is_the_one_in_memory(tmp_path: Path) -> None:
    unet, scheduler = tiny_pixel()
    folder = save_pipeline(tmp_path / "pixel", unet=unet, scheduler=scheduler)
    opened = open_denoiser(folder)
    start = start_noise(opened, 2, seed=1)
    own, read = (denoise(d, start, steps=2, read=["mid"]) for d in (Denoiser(unet, scheduler), opened))
    assert torch.allclose(own.images, read.images, atol=1e-5)
    assert decode_images(opened, read.images).shape == (2, 3, 8, 8)
    for wrong in (tmp_path / "missing", folder / "unet"):
        with pytest.raises(BadInput, match="must be a pipeline of diffusers"):
            open_denoiser(wrong)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(BadInput, match=r"the unet of .* cannot be read"):
        open_denoiser(folder)
    (folder / "model_index.json").write_text(
        '{"unet": ["diffusers", "NoSuchUNet"], "scheduler": ["diffusers", "DDIMScheduler"]}'
    )
    with pytest.raises(BadInput, match="must be a class of diffusers, got NoSuchUNet"):
        open_denoiser(folder)
    (folder / "model_index.json").write_text('{"transformer": ["diffusers", "DiTTransformer2DModel"]}')
    with pytest.raises(BadInput, match="got no unet and no scheduler"):
        open_denoiser(folder)


@_OLD_NUMPY_CALL
def test_latent_pipeline_with_prompts_guidance_and_autoencoder(tmp_path: Path) -> None:
    import diffusers
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    unet, autoencoder = tiny_latent()
    words = Tokenizer(models.WordLevel({"<pad>": 0, "a": 1, "red": 2, "disc": 3}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", model_max_length=6)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = CLIPTextModel(CLIPTextConfig(vocab_size=4, max_position_embeddings=6, eos_token_id=0, **sizes)).eval()
    scheduler = diffusers.LMSDiscreteScheduler(num_train_timesteps=50)
    parts = {"unet": unet, "scheduler": scheduler, "vae": autoencoder}
    folder = save_pipeline(tmp_path / "latent", **parts, tokenizer=tokenizer, text_encoder=encoder)
    opened = open_denoiser(folder, prompts=["a red disc", "a disc"], guidance=3.0)
    start = start_noise(opened, 2)
    made = denoise(opened, start, steps=3, read=["up.0", "up.0.attn.0"])
    assert opened.attentions == ("down.1.attn.0", "mid.attn.0", "up.0.attn.0", "up.0.attn.1")
    assert made.activations[2, "up.0.attn.0"].shape == (2, 16, 4, 4)
    assert decode_images(opened, made.images).shape == (2, 3, 16, 16)
    # By hand: the noise in the scheduler's unit, both passes, their sum.
    ids = tokenizer(["a red disc", "a disc", "", ""], padding="max_length", max_length=6, return_tensors="pt").input_ids
    with torch.no_grad():
        text = encoder(ids)[0]
        scheduler.set_timesteps(3)
        x = start * scheduler.init_noise_sigma
        for time in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, time)
            shown, plain = (unet(scaled, time, encoder_hidden_states=of).sample for of in (text[:2], text[2:]))
            x = scheduler.step(plain + 3 * (shown - plain), time, x).prev_sample
    assert torch.allclose(made.images, x, rtol=1e-4, atol=1e-4)
    # An edit of an attention that returns its input changes nothing, another one does, in both passes.
    same = denoise(opened, start, steps=3, edits={(1, "up.0.attn.0"): lambda x: x})
    assert torch.equal(same.images, made.images)
    # The heat map of the pipeline: attentions × steps, with labels of the size of the decoded images.
    many = open_denoiser(folder, prompts=["a red disc"] * 6)
    read = denoise(many, start_noise(many, 6), steps=2, read=many.attentions)
    scenes = make_scenes(6, side=16)
    labels = Scenes(decode_images(many, read.images), scenes.depth, scenes.mask)
    rows = pd.DataFrame([asdict(row) for row in readability_records(read, labels)])
    chart = load_view("denoising").draw(rows).to_dict()
    assert all(f"'{name}'" in json.dumps(chart) for name in (*many.attentions, "pixels", "place"))
    passes = []
    denoise(opened, start, steps=3, edits={(1, "up.0.attn.0"): lambda x: passes.append(x.shape) or x * 2})
    assert passes == [(2, 16, 4, 4)] * 2
    plain = save_pipeline(tmp_path / "plain", **parts)
    with pytest.raises(
        BadInput, match=r"`prompts` must be given to a pipeline with one tokenizer .* with no tokenizer"
    ):
        open_denoiser(plain, prompts=["a disc"])
    with pytest.raises(BadInput, match="the UNet needs encoder_hidden_states, got none"):
        denoise(open_denoiser(plain), start, steps=2)
    with pytest.raises(BadInput, match=r"`guidance` must be 1 without prompts, got 7\.5"):
        denoise(open_denoiser(plain, guidance=7.5, encoder_hidden_states=text[:1]), start, steps=2)
    with pytest.raises(BadInput, match="as many as images, or one for all, got 2 for 3"):
        denoise(opened, start_noise(opened, 3), steps=2)


@_OLD_NUMPY_CALL
def test_refuses_wrong_sites_steps_schedulers_and_sizes() -> None:
    import diffusers

    unet, scheduler = tiny_pixel()
    denoiser, start = Denoiser(unet, scheduler), torch.randn(2, 3, 8, 8)
    with pytest.raises(BadInput, match="did you mean mid"):
        denoise(denoiser, start, steps=2, edits={(0, "mud"): lambda x: x})
    with pytest.raises(BadInput, match=r"up\.7"):
        denoise(denoiser, start, steps=2, read=["up.7"])
    with pytest.raises(BadInput, match="between 0 and 1, got 2"):
        denoise(denoiser, start, steps=2, edits={(2, "mid"): lambda x: x})
    with pytest.raises(BadInput, match="`steps` must be at least 1"):
        denoise(denoiser, start, steps=0)
    with pytest.raises(BadInput, match=r"at least 60 training steps .* got DDIMScheduler with 50"):
        denoise(denoiser, start, steps=60)
    with pytest.raises(BadInput, match="got object with None"):
        denoise(Denoiser(unet, object()), start, steps=2)
    with pytest.raises(BadInput, match="once a step, got HeunDiscreteScheduler with 3 passes"):
        denoise(Denoiser(unet, diffusers.HeunDiscreteScheduler(num_train_timesteps=50)), start, steps=2)
    for wrong in (torch.randn(2, 4, 8, 8), torch.randn(2, 3, 9, 8), torch.randn(3, 8, 8)):
        with pytest.raises(BadInput, match="images × 3 channels × rows × columns, both multiples of 2"):
            denoise(denoiser, wrong, steps=2)
    with pytest.raises(BadInput, match="`images` must be at least 1"):
        start_noise(denoiser, 0)


def test_readability_of_a_planted_block_beside_controls() -> None:
    """Activations that carry mask and depth at one step alone are above the controls there alone."""
    scenes = make_scenes(40, side=8, seed=0)
    planted = torch.stack([scenes.mask.float(), scenes.depth, torch.randn(40, 8, 8)], 1)
    noise = [torch.randn(40, 3, 8, 8) for _ in range(2)]
    made = Denoised(scenes.images, {(0, "mid"): torch.randn(40, 3, 8, 8), (1, "mid"): planted}, noise)
    untrained = {(step, "mid"): torch.randn(40, 3, 8, 8) for step in range(2)}
    rows = list(readability_records(made, scenes, untrained=untrained))
    by = {(r.metric, r.coords["block"], r.coords["denoising"], r.control): r for r in rows}
    assert {key[1] for key in by} == {"mid", "pixels", "place"}
    assert by["mask_dice", "mid", "1", None].value > 0.95
    assert by["depth_error", "mid", "1", None].value < 0.01
    for metric in ("mask_dice_gain", "depth_error_gain", "depth_rank_gain"):
        assert by[metric, "mid", "1", None].low > 0
        assert by[metric, "mid", "0", None].low < 0
    with pytest.raises(BadInput, match="at least 6 images, got 4"):
        list(readability_records(made, make_scenes(4, side=8)))
    with pytest.raises(BadInput, match="of one size"):
        fit_scene_probe(planted, Scenes(scenes.images, scenes.depth, scenes.mask[:, :4]))


@given(st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(0, 99))
def test_pictures_are_the_pixels(rows: int, columns: int, colour: bool, seed: int) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs pillow")
    size = (3, rows, columns) if colour else (rows, columns)
    levels = torch.randint(0, 256, size, generator=torch.Generator().manual_seed(seed))
    url = picture_url(levels / 255 * 2 - 1 if colour else levels / 255)
    read = np.asarray(image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))
    assert np.array_equal(read, (levels.movedim(0, -1) if colour else levels).numpy())


def test_refuses_pictures_that_are_no_small_image() -> None:
    for size in ((4, 8, 8), (300, 8), (8,)):
        with pytest.raises(BadInput, match="at most 256 pixels a side"):
            picture_url(torch.zeros(size))


def test_probe_is_least_squares_on_the_means_of_cells() -> None:
    x, target = torch.randn(20, 5, 4, 4), torch.rand(20, 8, 8)
    probe = fit_spatial_probe(x, target)
    cells = target.reshape(20, 4, 2, 4, 2).mean((2, 4)).reshape(-1)
    known = LinearRegression().fit(x.movedim(1, -1).reshape(-1, 5).numpy(), cells.numpy())
    assert np.allclose(probe.weight.numpy(), known.coef_, atol=2e-3)
    read = probe.read(x, 8)
    assert read.shape == target.shape
    assert torch.equal(read[:, 0, 0], read[:, 1, 1])
    flat, values = x.movedim(1, -1).reshape(-1, 5).numpy(), probe.read(x, 4).reshape(-1).numpy()
    pattern = [np.cov(channel, values)[0, 1] / values.var(ddof=1) for channel in flat.T]
    assert np.allclose(probe.pattern.numpy(), pattern, atol=2e-3)
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
    other = push_to_target(probe, target.flip(0), bound=1e6)
    as_far = push_as_far(other, bound)(x) - x
    assert torch.allclose(as_far.flatten(1).norm(dim=1), length, rtol=1e-4)
    assert torch.allclose(torch.cosine_similarity(as_far, other(x) - x, dim=1), torch.ones(6, 4, 4), atol=1e-4)
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
