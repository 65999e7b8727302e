"""Export and import of directions: llama.cpp's control vectors, vLLM-Lens, lm-eval's `steered`, plain .pt and .npy.

These tools count blocks from 0, this package from 1: `resid.l` is the output of their layer l − 1.
"""

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ontogeny.direction import Direction
from ontogeny.errors import BadInput
from ontogeny.sites import Site
from ontogeny.storage.files import atomic_path

_STRING, _INT32, _F32, _ALIGNMENT = 8, 5, 0, 32
"""Constants of the GGUF format, version 3: value types, tensor type and alignment."""


def write_gguf(
    directions: Direction | Sequence[Direction], path: str | Path, *, model_type: str, alpha: float = 1.0
) -> Path:
    """Write a control vector for llama.cpp, loaded there as a control-vector file.

    Args:
        model_type: llama.cpp's name of the architecture, such as `llama`; a hint that it does not check.
        alpha: Factor of the vectors.

    Raises:
        BadInput: llama.cpp cannot steer at a site, or two directions are at one layer.
    """
    given = [directions] if isinstance(directions, Direction) else list(directions)
    for direction in given:
        _check_residual_stream(direction, "llama.cpp", first_layer=2)
    vectors = {one.site.layer - 1: _check_finite_alpha(alpha) * one.vector.detach().cpu().float() for one in given}
    if not given or len(vectors) < len(given) or len({len(v) for v in vectors.values()}) > 1:
        raise BadInput("a control vector needs one direction per layer, of one width: add up those of one layer first.")
    target = Path(path)
    with atomic_path(target) as temporary:
        temporary.write_bytes(_gguf({layer: vector.numpy() for layer, vector in vectors.items()}, model_type))
    return target


def _gguf(vectors: dict[int, np.ndarray], model_type: str) -> bytes:
    def text(value: str) -> bytes:
        encoded = value.encode()
        return struct.pack("<Q", len(encoded)) + encoded

    fields = [("general.architecture", "controlvector"), ("controlvector.model_hint", model_type)]
    head = b"".join(text(key) + struct.pack("<I", _STRING) + text(value) for key, value in fields)
    head += text("controlvector.layer_count") + struct.pack("<Ii", _INT32, len(vectors))
    infos, data = b"", b""
    for layer, vector in sorted(vectors.items()):
        infos += text(f"direction.{layer}") + struct.pack("<IQIQ", 1, len(vector), _F32, len(data))
        data += _pad_to_alignment(vector.astype("<f4").tobytes())
    start = struct.pack("<4sIQQ", b"GGUF", 3, len(vectors), len(fields) + 1)
    return _pad_to_alignment(start + head + infos) + data


def _pad_to_alignment(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % _ALIGNMENT)


def vllm_lens_arguments(direction: Direction, alpha: float = 1.0) -> dict[str, Any]:
    """Arguments of vLLM-Lens's `SteeringVector`: the vector is added unscaled at every position after the layer."""
    _check_residual_stream(direction, "vLLM-Lens", first_layer=1)
    return {
        "activations": direction.vector[None].float(),
        "layer_indices": [direction.site.layer - 1],
        "scale": _check_finite_alpha(alpha),
        "norm_match": False,
    }


def write_lm_eval(
    direction: Direction,
    path: str | Path,
    *,
    alpha: float = 1.0,
    action: Literal["add", "clamp"] = "add",
    blocks: str = "layers",
) -> Path:
    """Write a steering file for lm-eval's model `steered` (its argument `steer_path`).

    A file holds one direction, since lm-eval adds the last vector of a file at all of its sites.

    Args:
        blocks: Name of the layers in the base model: `layers` in Llama and GPT-NeoX, `h` in GPT-2.

    Raises:
        BadInput: the site is not the output of a block, or the file does not end in .pt.
    """
    _check_residual_stream(direction, "lm-eval", first_layer=1)
    target = Path(path)
    if target.suffix != ".pt":
        raise BadInput(f"a file for lm-eval must end in .pt, got {target.name}: rename it.")
    entry = {
        "action": action,
        "steering_vector": direction.vector.float(),
        "steering_coefficient": _check_finite_alpha(alpha),
        "bias": None,
    }
    with atomic_path(target) as temporary:
        torch.save({f"{blocks}.{direction.site.layer - 1}": entry}, temporary)
    return target


def read_vector(
    path: str | Path,
    *,
    site: str,
    origin: str,
    scale: str = "raw",
    position: str = "last",
    sign: str = "",
    key: str | int | None = None,
    allow_pickle: bool = False,
) -> Direction:
    """Read a plain vector from a .npy, .pt or .pth file; the arguments give the metadata that it lacks.

    Args:
        key: Key, index or row of the vector in the file.

    Raises:
        BadInput: the file is a pickle and `allow_pickle` is not set, or it has no vector under `key`.
    """
    file = Path(path)
    if not file.is_file():
        raise BadInput(f"there is no file {file}: name a .npy, .pt or .pth file.")
    held = _load_array(file, allow_pickle)
    if key is not None:
        try:
            held = held[key]
        except (KeyError, IndexError, TypeError):
            known = f"; known: {', '.join(map(repr, held))}"[:200] if isinstance(held, dict) else ""
            raise BadInput(f"{file} has nothing under {key!r}{known}: set another `key`.") from None
    if not isinstance(held, Tensor) or held.squeeze().ndim != 1:
        shape = f"shape {tuple(held.shape)}" if isinstance(held, Tensor) else type(held).__name__
        raise BadInput(f"{file} must hold one vector, got {shape}: choose one by `key`.")
    return Direction(held.squeeze().float(), Site.parse(site), origin, scale, position, {}, sign)


def _load_array(file: Path, allow_pickle: bool) -> Any:
    if file.suffix == ".npy":
        try:
            return torch.from_numpy(np.load(file, allow_pickle=False))
        except (ValueError, TypeError, OSError) as error:
            raise BadInput(
                f"{file} cannot be read as an array ({str(error).splitlines()[0]}): save it again."
            ) from None
    if file.suffix not in (".pt", ".pth"):
        raise BadInput(
            f"a vector's file must end in .npy, .pt or .pth, got {file.name}: read a .safetensors direction with load_direction."
        )
    if not allow_pickle:
        raise BadInput(f"{file} is a pickle: set `allow_pickle` (weights only, no code is run), or save it as .npy.")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception as error:  # pickles fail in many ways
        raise BadInput(
            f"{file} must hold tensors only, so it is not opened ({type(error).__name__}): save it as .npy."
        ) from None


def _check_residual_stream(direction: Direction, tool: str, *, first_layer: int) -> None:
    if direction.site.part != "resid" or direction.site.layer < first_layer:
        raise BadInput(
            f"{tool} steers the residual stream at resid.{first_layer} and later, got {direction.site}: take such a direction."
        )


def _check_finite_alpha(alpha: float) -> float:
    if not math.isfinite(alpha):
        raise BadInput(f"`alpha` must be a finite number, got {alpha}: try 1.")
    return alpha
