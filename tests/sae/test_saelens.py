"""The format of SAELens: folders as version 6.54.12 writes them are read, and its own formula gives our latents."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ontogeny.errors import BadInput
from ontogeny.sae import SparseAutoencoder, load_saelens, save_saelens
from ontogeny.sites import Site

D, LATENTS = 8, 20
COMMON = {
    "d_in": D, "d_sae": LATENTS, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True,
    "normalize_activations": "none", "reshape_activations": "none",
    "metadata": {"sae_lens_version": "6.54.12", "sae_lens_training_version": "6.54.12"},
}  # fmt: skip
CONFIGS = {
    "standard": COMMON | {"architecture": "standard"},
    "topk": COMMON | {"k": 3, "rescale_acts_by_decoder_norm": False, "architecture": "topk"},
    "topk, rescaled": COMMON | {"k": 3, "rescale_acts_by_decoder_norm": True, "architecture": "topk"},
    "jumprelu": COMMON | {"architecture": "jumprelu"},
    "scaled": COMMON | {"architecture": "standard", "normalize_activations": "constant_norm_rescale"},
    "before 6.0": {
        "d_in": D, "d_sae": LATENTS, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}, "apply_b_dec_to_input": False,
        "hook_name": "blocks.1.hook_resid_post", "normalize_activations": "none", "dtype": "torch.float32",
    },
}  # fmt: skip


def write(folder: Path, config: dict, **changes: torch.Tensor) -> dict[str, torch.Tensor]:
    """A folder with random weights, as SAELens writes it."""
    g = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (D, LATENTS), "b_enc": (LATENTS,), "W_dec": (LATENTS, D), "b_dec": (D,)}
    weights = {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}
    if config.get("architecture") == "jumprelu":
        weights["threshold"] = torch.rand(LATENTS, generator=g)
    folder.mkdir(exist_ok=True)
    save_file(weights | changes, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    return weights


def reference(config: dict, w: dict[str, torch.Tensor], x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and reconstruction by the formulas of SAELens's documentation."""
    factor = D**0.5 / x.norm(dim=-1, keepdim=True) if config["normalize_activations"] != "none" else torch.ones(1)
    inside = x * factor - (w["b_dec"] if config["apply_b_dec_to_input"] else 0)
    scores = inside @ w["W_enc"] + w["b_enc"]
    norm = w["W_dec"].norm(dim=-1) if config.get("rescale_acts_by_decoder_norm") else torch.ones(1)
    scores = scores * norm
    if "threshold" in w:
        latents = scores * (scores > w["threshold"])
    elif "k" in config or "activation_fn_kwargs" in config:
        best = scores.topk(3, dim=-1)
        latents = torch.zeros_like(scores).scatter(-1, best.indices, best.values.relu())
    else:
        latents = scores.relu()
    return latents, (latents / norm @ w["W_dec"] + w["b_dec"]) / factor


@pytest.mark.parametrize("name", CONFIGS)
def test_folder_is_read_and_written_again(name: str, tmp_path: Path) -> None:
    config, x = CONFIGS[name], torch.randn(40, D, generator=torch.Generator().manual_seed(1))
    latents, rebuilt = reference(config, write(tmp_path / "theirs", config), x)
    own = load_saelens(tmp_path / "theirs")
    again = load_saelens(save_saelens(own, tmp_path / "ours", model="a/b", site=Site("resid", 2)))
    for autoencoder in (own, again):
        torch.testing.assert_close(autoencoder.encode(x), latents, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(autoencoder.reconstruct(x), rebuilt, rtol=1e-5, atol=1e-5)
    written = json.loads((tmp_path / "ours/cfg.json").read_text())
    assert written["metadata"]["hook_name"] == "blocks.1.hook_resid_post"
    if "metadata" in config and "rescaled" not in name:
        assert {key: written[key] for key in config if key != "metadata"} == {
            k: v for k, v in config.items() if k != "metadata"
        }
        theirs, ours = (load_file(tmp_path / side / "sae_weights.safetensors") for side in ("theirs", "ours"))
        assert all(torch.equal(ours[key], value) for key, value in theirs.items())
        assert set(ours) == set(theirs)


@pytest.mark.parametrize(
    ("change", "weights", "message"),
    [
        ({"architecture": "gated"}, {}, "architecture must be one of standard, topk, jumprelu, got gated"),
        ({"normalize_activations": "layer_norm"}, {}, "`normalize_activations`"),
        ({"architecture": "topk", "k": 0}, {}, "`k` of a topk"),
        (
            {"architecture": "jumprelu", "activation_fn": "relu"},
            {"b_dec": torch.full((D,), torch.inf)},
            "must be finite",
        ),
        ({}, {"W_dec": torch.zeros(3, D)}, "`decoder` must have shape"),
        ({}, {"scaling_factor": torch.full((LATENTS,), 2.0)}, "scaling factor"),
    ],
)
def test_rejects_what_it_would_misread(change: dict, weights: dict, message: str, tmp_path: Path) -> None:
    write(tmp_path, CONFIGS["standard"] | change, **weights)
    with pytest.raises(BadInput, match=message):
        load_saelens(tmp_path)


def test_rejects_missing_files_and_sparsemax(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"without cfg\.json"):
        load_saelens(tmp_path)
    (tmp_path / "cfg.json").write_text("[1]")
    (tmp_path / "sae_weights.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match="a JSON object"):
        load_saelens(tmp_path)
    plain = SparseAutoencoder("sparsemax", torch.ones(2, 3), torch.zeros(3), torch.ones(3, 2), torch.zeros(2))
    with pytest.raises(BadInput, match="SAELens has no sparsemax"):
        save_saelens(plain, tmp_path / "out")
