"""Directions for other tools, and from them: llama.cpp's control vectors, vLLM-Lens, lm-eval's `steered`, plain .pt and .npy.

Everywhere blocks are counted from 0 there and from 1 here: `resid.l` is the output of their layer l − 1.
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
"""Numbers of the GGUF format, version 3: types of a value, type of a tensor, and where tensors begin."""


def write_gguf(
    directions: Direction | Sequence[Direction], path: str | Path, *, model_type: str, alpha: float = 1.0
) -> Path:
    """A control vector for llama.cpp (`--control-vector FILE`, `--control-vector-scaled FILE:S`), alpha multiplied in.

    `model_type` is llama.cpp's name of the architecture, such as `llama`: a hint that it does not check.

    Raises:
        BadInput: a site that llama.cpp cannot steer, or two directions at one layer.
    """
    many = [directions] if isinstance(directions, Direction) else list(directions)
    for one in many:
        _stream_only(one, "llama.cpp")
        if one.site.layer < 2:
            raise BadInput(
                f"llama.cpp steers behind its layer 1 and later, that is resid.2 and later, not at {one.site}. Take a later layer."
            )
    vectors = {one.site.layer - 1: _scaled(one, alpha).numpy() for one in many}
    if not many or len(vectors) < len(many) or len({len(v) for v in vectors.values()}) > 1:
        raise BadInput("a control vector needs one direction a layer, of one width. Add up those of one layer first.")
    target = Path(path)
    with atomic_path(target) as temporary:
        temporary.write_bytes(_gguf(vectors, model_type))
    return target


def _gguf(vectors: dict[int, np.ndarray], model_type: str) -> bytes:
    def text(value: str) -> bytes:
        encoded = value.encode()
        return struct.pack("<Q", len(encoded)) + encoded

    told = [("general.architecture", "controlvector"), ("controlvector.model_hint", model_type)]
    head = b"".join(text(key) + struct.pack("<I", _STRING) + text(value) for key, value in told)
    head += text("controlvector.layer_count") + struct.pack("<Ii", _INT32, len(vectors))
    infos, data = b"", b""
    for layer, vector in sorted(vectors.items()):
        infos += text(f"direction.{layer}") + struct.pack("<IQIQ", 1, len(vector), _F32, len(data))
        data += _pad_to_alignment(vector.astype("<f4").tobytes())
    start = struct.pack("<4sIQQ", b"GGUF", 3, len(vectors), len(told) + 1)
    return _pad_to_alignment(start + head + infos) + data


def _pad_to_alignment(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % _ALIGNMENT)


def vllm_lens_arguments(direction: Direction, alpha: float = 1.0) -> dict[str, Any]:
    """The arguments of vLLM-Lens's `SteeringVector`: the vector as it is, added at every position after the layer."""
    _stream_only(direction, "vLLM-Lens")
    if direction.site.layer < 1:
        raise BadInput(f"vLLM-Lens steers behind a layer, not at {direction.site}. Take resid.1 or later.")
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
    """A steering file for lm-eval (`--model steered --model_args steer_path=FILE`).

    `blocks` is where the base model keeps its layers: `layers` in Llama and GPT-NeoX, `h` in GPT-2. One direction a file: that
    harness adds the last vector of a file at all of its places.

    Raises:
        BadInput: a site that is not the output of a block, or a file without the ending .pt.
    """
    _stream_only(direction, "lm-eval")
    target = Path(path)
    if target.suffix != ".pt" or direction.site.layer < 1:
        raise BadInput(
            f"lm-eval reads .pt files for the outputs of blocks, not {target.name} at {direction.site}. Correct either."
        )
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
    """A plain vector of a .npy, .pt or .pth file, with what the file does not say; `key` picks from a dict, a list or rows.

    Raises:
        BadInput: a pickle without consent, nothing under `key`, or what is no vector.
    """
    file = Path(path)
    if not file.is_file():
        raise BadInput(f"there is no file {file}. Name a .npy, .pt or .pth file.")
    held = _load_array(file, allow_pickle)
    if key is not None:
        try:
            held = held[key]
        except (KeyError, IndexError, TypeError):
            known = f"; it holds {', '.join(map(repr, held))}"[:200] if isinstance(held, dict) else ""
            raise BadInput(f"{file} holds nothing under {key!r}{known}. Give another key.") from None
    if not isinstance(held, Tensor) or held.squeeze().ndim != 1:
        shape = f"shape {tuple(held.shape)}" if isinstance(held, Tensor) else type(held).__name__
        raise BadInput(f"{file} holds no single vector but {shape}. Pick one with key.")
    return Direction(held.squeeze().float(), Site.parse(site), origin, scale, position, {}, sign)


def _load_array(file: Path, allow_pickle: bool) -> Any:
    if file.suffix == ".npy":
        try:
            return torch.from_numpy(np.load(file, allow_pickle=False))
        except (ValueError, TypeError, OSError) as error:
            raise BadInput(
                f"{file} cannot be read as an array ({str(error).splitlines()[0]}). Save it again."
            ) from None
    if file.suffix not in (".pt", ".pth"):
        raise BadInput(
            f"{file.name} is neither .npy nor .pt nor .pth. A .safetensors direction is read with direction_files.load."
        )
    if not allow_pickle:
        raise BadInput(
            f"{file} is a pickle. Allow it with allow_pickle=True (weights only, no code is run), or save it as .npy."
        )
    try:
        return torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception as error:  # pickles fail in many ways
        raise BadInput(
            f"{file} is not tensors alone ({type(error).__name__}), so it is not opened. Save it as .npy."
        ) from None


def _stream_only(direction: Direction, tool: str) -> None:
    if direction.site.part != "resid":
        raise BadInput(f"{tool} steers the residual stream, not {direction.site}. Take a direction at resid.l.")


def _scaled(direction: Direction, alpha: float) -> Tensor:
    return _check_finite_alpha(alpha) * direction.vector.detach().cpu().float()


def _check_finite_alpha(alpha: float) -> float:
    if not math.isfinite(alpha):
        raise BadInput(f"alpha must be a finite number, not {alpha}. Try 1.")
    return alpha
