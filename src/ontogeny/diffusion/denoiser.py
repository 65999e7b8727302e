"""A denoiser: any UNet of `diffusers` with its scheduler, its sites by name, their activations at each step, and edits of them.

Blocks are `down.0` …, `mid`, `up.0` …, as the image passes through them; a block's activation is its output. `up.1.attn.2` is the output
of the third self-attention of a block, before it is added. Activations are image × channel × row × column. Pixel and latent models differ
in what they denoise only.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
    unconditional: Mapping[str, Any] = field(default_factory=dict)
    """The same without the prompt, for guidance."""
    guidance: float = 1.0
    """Weight of the prompt in classifier-free guidance (arXiv:2207.12598); 1 is without."""
    autoencoder: nn.Module | None = None
    """Decoder of a latent model."""

    @functools.cached_property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks in the order of the forward pass."""
        names = [f"down.{i}" for i in range(len(self._list("down_blocks")))]
        names += ["mid"] if getattr(self.unet, "mid_block", None) is not None else []
        return (*names, *(f"up.{i}" for i in range(len(self._list("up_blocks")))))

    @functools.cached_property
    def attentions(self) -> tuple[str, ...]:
        """Names of the self-attentions in the order of the forward pass, those of arXiv:2306.05720."""
        counts = {name: len(getattr(self._block(name), "attentions", None) or ()) for name in self.blocks}
        return tuple(f"{name}.attn.{i}" for name, count in counts.items() for i in range(count))

    def module(self, name: str) -> nn.Module:
        """The module whose output is the activation of a block or of a self-attention.

        Raises:
            BadInput: the UNet has no such site.
        """
        if name not in (*self.blocks, *self.attentions):
            raise unknown_name("block", name, (*self.blocks, *self.attentions))
        block, _, place = name.partition(".attn.")
        if not place:
            return self._block(name)
        attention = self._block(block).get_submodule(f"attentions.{place}")
        inside = "transformer_blocks.0.attn1." if hasattr(attention, "transformer_blocks") else ""
        return attention.get_submodule(f"{inside}to_out.0")

    def _block(self, name: str) -> nn.Module:
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
    """Denoised images, with the activations that were read meanwhile."""

    images: Float[Tensor, "image channel row column"]
    """Latents, if the model is a latent one."""
    activations: Mapping[tuple[int, str], Float[Tensor, "image channel row column"]]
    """By step, counted from 0, the noisiest, and block."""
    inputs: Sequence[Float[Tensor, "image channel row column"]]
    """Inputs of the UNet at each step."""


def start_noise(denoiser: Denoiser, images: int, *, seed: int = 0) -> Float[Tensor, "image channel row column"]:
    """Noise of the size on which the UNet was trained.

    Raises:
        BadInput: less than one image, or a UNet that names no size.
    """
    config = getattr(denoiser.unet, "config", None)
    side, channels = getattr(config, "sample_size", None), getattr(config, "in_channels", None)
    if images < 1 or side is None or channels is None:
        raise BadInput(
            f"`images` must be at least 1 and the UNet's configuration have a sample_size, got {images} and {side}: "
            "draw the noise yourself."
        )
    rows, columns = (side, side) if isinstance(side, int) else side
    return torch.randn(images, channels, rows, columns, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def denoise(
    denoiser: Denoiser,
    start: Float[Tensor, "image channel row column"],
    *,
    steps: int,
    read: Sequence[str] = (),
    edits: Mapping[tuple[int, str], BlockEdit] | None = None,
    seed: int = 0,
) -> Denoised:
    """Denoise from noise to images. With guidance, edits apply to both passes and activations are those of the pass with the prompt.

    Args:
        start: Noise of unit variance, one image each.
        steps: Number of steps.
        read: Blocks or attentions whose activations are stored, after their edit if they have one.
        edits: Changes of activations, by step and block.
        seed: Of the random numbers of a scheduler that draws some (DDIM draws none).

    Raises:
        BadInput: an unknown block, a step beyond the last one, fewer than one step, or noise of another size than the UNet's.
    """
    changes = dict(edits or {})
    times = _timesteps(denoiser, steps)
    for step, name in changes:
        denoiser.module(name)
        if not 0 <= step < steps:
            raise BadInput(
                f"the step of an edit must lie between 0 and {steps - 1}, got {step}: count from 0, the noisiest."
            )
    condition, without = (
        _checked_condition(denoiser, start, given) for given in (denoiser.condition, denoiser.unconditional)
    )
    draws = "generator" in inspect.signature(denoiser.scheduler.step).parameters
    random = {"generator": torch.Generator().manual_seed(seed)} if draws else {}
    x = start * float(getattr(denoiser.scheduler, "init_noise_sigma", 1.0))
    stored, inputs = dict[tuple[int, str], Tensor](), []
    for step, time in enumerate(times):
        scaled = denoiser.scheduler.scale_model_input(x, time)
        inputs.append(scaled)
        own = {name: edit for (at, name), edit in changes.items() if at == step}
        with _hooked(denoiser, scaled, read, own) as seen:
            out = denoiser.unet(scaled, time, **condition).sample
        if denoiser.guidance != 1:
            with _hooked(denoiser, scaled, (), own):
                plain = denoiser.unet(scaled, time, **without).sample
            out = plain + denoiser.guidance * (out - plain)
        stored |= {(step, name): value for name, value in seen.items()}
        x = denoiser.scheduler.step(out, time, x, **random).prev_sample
    return Denoised(x, stored, inputs)


@torch.no_grad()
def block_activations(
    denoiser: Denoiser, inputs: Sequence[Float[Tensor, "image channel row column"]], read: Sequence[str]
) -> dict[tuple[int, str], Float[Tensor, "image channel row column"]]:
    """Activations on the inputs that another denoiser was given, such as those of an untrained network on the same noisy images."""
    stored: dict[tuple[int, str], Tensor] = {}
    for step, (x, time) in enumerate(zip(inputs, _timesteps(denoiser, len(inputs)), strict=True)):
        with _hooked(denoiser, x, read, {}) as seen:
            denoiser.unet(x, time, **_checked_condition(denoiser, x, denoiser.condition))
        stored |= {(step, name): value for name, value in seen.items()}
    return stored


def _timesteps(denoiser: Denoiser, steps: int) -> Sequence[Any]:
    """Noise levels of the steps, from the noisiest."""
    if steps < 1:
        raise BadInput(f"`steps` must be at least 1, got {steps}: choose 10.")
    scheduler = denoiser.scheduler
    trained = getattr(getattr(scheduler, "config", None), "num_train_timesteps", None)
    if not isinstance(trained, int) or trained < steps:
        raise BadInput(
            f"`scheduler` must be one of diffusers with at least {steps} training steps (num_train_timesteps), got "
            f"{type(scheduler).__name__} with {trained}: take the one that the model was trained with, or fewer steps."
        )
    scheduler.set_timesteps(steps)
    times: Sequence[Any] = list(scheduler.timesteps)
    if len(times) != steps:
        raise BadInput(
            f"`scheduler` must pass the UNet once a step, got {type(scheduler).__name__} with {len(times)} passes for "
            f"{steps} steps: take DDIMScheduler.from_config of its configuration."
        )
    return times


def _checked_condition(denoiser: Denoiser, start: Tensor, condition: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the UNet for these images; a text that stands for all is repeated."""
    unet, given = denoiser.unet, dict(condition)
    config = getattr(unet, "config", None)
    channels, cells = getattr(config, "in_channels", None), 2 ** (len(denoiser.blocks) // 2 - 1)
    sizes = tuple(start.shape)
    if len(sizes) != 4 or (channels is not None and sizes[1] != channels) or any(n % cells for n in sizes[2:]):
        raise BadInput(
            f"noise must be images × {channels} channels × rows × columns, both multiples of {cells}, got {sizes}: "
            "draw it by `start_noise`."
        )
    needed = [
        name
        for name, parameter in list(inspect.signature(unet.forward).parameters.items())[2:]
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    if missing := [name for name in needed if name not in given and condition is denoiser.condition]:
        raise BadInput(f"the UNet needs {' and '.join(missing)}, got none: give `prompts`, or the argument itself.")
    if denoiser.guidance != 1 and condition is denoiser.unconditional and not given:
        raise BadInput(
            f"`guidance` must be 1 without prompts, got {denoiser.guidance:g}: give `prompts`, or `unconditional`."
        )
    text = given.get("encoder_hidden_states")
    if isinstance(text, Tensor) and len(text) != sizes[0]:
        if len(text) != 1:
            raise BadInput(
                f"prompts must be as many as images, or one for all, got {len(text)} for {sizes[0]} images: draw noise for each prompt."
            )
        given["encoder_hidden_states"] = text.expand(sizes[0], -1, -1)
    return given


@contextlib.contextmanager
def _hooked(
    denoiser: Denoiser, images: Tensor, read: Sequence[str], edits: Mapping[str, BlockEdit]
) -> Iterator[dict[str, Tensor]]:
    """Store and change the outputs of blocks during one pass."""
    seen: dict[str, Tensor] = {}
    handles = []

    def hook(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def run(_: nn.Module, __: Any, output: Any) -> Any:
            several = isinstance(output, tuple)
            flat: Tensor = output[0] if several else output
            value = _as_grid(flat, images)
            if name in edits:
                value = edits[name](value)
                changed = value if flat.ndim == 4 else value.flatten(2).mT
                # A block on the way down hands its output on twice: as the last of its residuals, too.
                rest = tuple(_exchanged(part, flat, changed) for part in output[1:]) if several else ()
                output = (changed, *rest) if several else changed
            if name in read:
                seen[name] = value.detach().clone()
            return output

        return run

    try:
        for name in dict.fromkeys([*read, *edits]):
            handles.append(denoiser.module(name).register_forward_hook(hook(name)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _as_grid(value: Tensor, images: Tensor) -> Float[Tensor, "image channel row column"]:
    """Tokens of an attention as rows and columns in the proportion of the images."""
    if value.ndim == 4:
        return value
    rows = round((value.shape[1] * images.shape[2] / images.shape[3]) ** 0.5)
    return value.mT.reshape(*value.mT.shape[:2], rows, -1)


def _exchanged(part: Any, before: Tensor, after: Tensor) -> Any:
    return tuple(after if residual is before else residual for residual in part) if isinstance(part, tuple) else part
