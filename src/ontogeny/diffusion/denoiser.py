"""A denoiser: any UNet of `diffusers` with its scheduler, its blocks by name, their activations at each step, and edits of them.

Blocks are `down.0` …, `mid`, `up.0` …, as the image passes through them; the activation of a block is its output, image × channel ×
row × column. Pixel and latent models differ in what they denoise only.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ontogeny.errors import BadInput, unknown_name

BlockEdit = Callable[[Float[Tensor, "image channel row column"]], Float[Tensor, "image channel row column"]]
"""Takes the activation of a block and returns the one that goes on."""


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A UNet and its scheduler."""

    unet: nn.Module
    scheduler: Any
    condition: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the UNet, such as `encoder_hidden_states` of a model with text."""

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks in the order of the forward pass."""
        names = [f"down.{i}" for i in range(len(self._list("down_blocks")))]
        names += ["mid"] if getattr(self.unet, "mid_block", None) is not None else []
        return (*names, *(f"up.{i}" for i in range(len(self._list("up_blocks")))))

    def block(self, name: str) -> nn.Module:
        """The module of a block.

        Raises:
            BadInput: there is no such block.
        """
        if name not in self.blocks:
            raise unknown_name("block", name, self.blocks)
        kind, _, place = name.partition(".")
        return self.unet.get_submodule("mid_block") if kind == "mid" else self._list(f"{kind}_blocks")[int(place)]

    def _list(self, name: str) -> Sequence[nn.Module]:
        blocks = getattr(self.unet, name, None)
        if blocks is None:
            raise BadInput(
                f"the denoiser must be a UNet of diffusers, got {type(self.unet).__name__} without {name}: give a UNet."
            )
        return list(blocks)


@dataclass(frozen=True, eq=False)
class Denoised:
    """Images that were denoised, with what was read on the way."""

    images: Float[Tensor, "image channel row column"]
    activations: Mapping[tuple[int, str], Float[Tensor, "image channel row column"]]
    """By step, counted from 0, the noisiest, and block."""
    inputs: Sequence[Float[Tensor, "image channel row column"]]
    """What the UNet was given at each step."""


def open_denoiser(folder: str | Path, **condition: Any) -> Denoiser:
    """The UNet and the scheduler of a pipeline of `diffusers` on disk, without the rest of it.

    Args:
        condition: Further arguments of the UNet in each step.

    Raises:
        BadInput: the folder is no pipeline with a UNet, or `diffusers` is not installed.
    """
    folder = Path(folder)
    library = import_diffusers()
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        parts = {name: getattr(library, index[name][1]) for name in ("unet", "scheduler")}
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{folder} must be a pipeline of diffusers with a unet and a scheduler in its model_index.json, got "
            f"{type(error).__name__}: {error}; save one by `save_pretrained`."
        ) from None
    try:
        unet = parts["unet"].from_pretrained(folder / "unet", use_safetensors=True, local_files_only=True)
        scheduler = parts["scheduler"].from_pretrained(folder / "scheduler", local_files_only=True)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise BadInput(
            f"the unet or scheduler of {folder} cannot be read ({first}): save the pipeline again."
        ) from None
    return Denoiser(unet.eval(), scheduler, condition)


def import_diffusers() -> Any:
    """The library `diffusers`.

    Raises:
        BadInput: it is not installed.
    """
    try:
        import diffusers
    except ImportError:
        raise BadInput("diffusers must be installed for diffusion models: pip install 'ontogeny[diffusion]'.") from None
    return diffusers


@torch.no_grad()
def denoise(
    denoiser: Denoiser,
    start: Float[Tensor, "image channel row column"],
    *,
    steps: int,
    read: Sequence[str] = (),
    edits: Mapping[tuple[int, str], BlockEdit] | None = None,
) -> Denoised:
    """Denoise from noise to images; without random numbers as far as the scheduler (DDIM, η = 0) takes none.

    Args:
        start: Noise, one image each.
        steps: Number of steps.
        read: Blocks whose activations are kept, after their edit if they have one.
        edits: What changes the activation of a block, by step and block.

    Raises:
        BadInput: an unknown block, a step beyond the last one, or fewer than one step.
    """
    if steps < 1:
        raise BadInput(f"`steps` must be at least 1, got {steps}: choose 10.")
    changes = dict(edits or {})
    for step, name in changes:
        denoiser.block(name)
        if not 0 <= step < steps:
            raise BadInput(
                f"the step of an edit must lie between 0 and {steps - 1}, got {step}: count from 0, the noisiest."
            )
    denoiser.scheduler.set_timesteps(steps)
    x, kept, inputs = start, dict[tuple[int, str], Tensor](), []
    for step, time in enumerate(denoiser.scheduler.timesteps):
        scaled = denoiser.scheduler.scale_model_input(x, time)
        inputs.append(scaled)
        own = {name: edit for (at, name), edit in changes.items() if at == step}
        with _hooked(denoiser, read, own) as found:
            out = denoiser.unet(scaled, time, **denoiser.condition).sample
        kept |= {(step, name): value for name, value in found.items()}
        x = denoiser.scheduler.step(out, time, x).prev_sample
    return Denoised(x, kept, inputs)


@torch.no_grad()
def block_activations(
    denoiser: Denoiser, inputs: Sequence[Float[Tensor, "image channel row column"]], read: Sequence[str]
) -> dict[tuple[int, str], Float[Tensor, "image channel row column"]]:
    """Activations on the inputs that another denoiser was given, such as those of an untrained network on the same noisy images."""
    denoiser.scheduler.set_timesteps(len(inputs))
    kept: dict[tuple[int, str], Tensor] = {}
    for step, (x, time) in enumerate(zip(inputs, denoiser.scheduler.timesteps, strict=True)):
        with _hooked(denoiser, read, {}) as found:
            denoiser.unet(x, time, **denoiser.condition)
        kept |= {(step, name): value for name, value in found.items()}
    return kept


@contextlib.contextmanager
def _hooked(denoiser: Denoiser, read: Sequence[str], edits: Mapping[str, BlockEdit]) -> Iterator[dict[str, Tensor]]:
    """Keep and change the outputs of blocks during one pass."""
    found: dict[str, Tensor] = {}
    handles = []

    def hook(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def run(_: nn.Module, __: Any, output: Any) -> Any:
            several = isinstance(output, tuple)
            value: Tensor = output[0] if several else output
            if name in edits:
                changed = edits[name](value)
                # A block on the way down hands its output on twice: as the last of its residuals, too.
                rest = tuple(_exchanged(part, value, changed) for part in output[1:]) if several else ()
                output, value = (changed, *rest) if several else changed, changed
            if name in read:
                found[name] = value.detach().clone()
            return output

        return run

    try:
        for name in dict.fromkeys([*read, *edits]):
            handles.append(denoiser.block(name).register_forward_hook(hook(name)))
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _exchanged(part: Any, before: Tensor, after: Tensor) -> Any:
    return tuple(after if residual is before else residual for residual in part) if isinstance(part, tuple) else part
