"""A Hugging Face model seen through standard names: load, validate, read, write. The only code with hooks.

Sites are read where `ontogeny.sites` says: `resid.0` enters block 1, `resid.l` leaves block l before the final norm, heads and
neurons are the inputs of the linear map that follows them.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from ontogeny import architectures
from ontogeny.architectures import Architecture
from ontogeny.errors import BadInput, CheckpointFault
from ontogeny.sites import Site, expand

Edit = Callable[[Tensor], Tensor]
"""What a write does: `h -> h` on the whole tensor at a site, `[batch, token, d]`."""
Sink = Callable[[str, int, Tensor], None]
"""What a read does with `(part, layer, value)`; it may raise to stop the forward pass."""


@dataclass(frozen=True)
class Model:
    network: PreTrainedModel
    architecture: Architecture
    tokenizer: PreTrainedTokenizerBase
    layers: int
    heads: int
    d: int
    d_head: int
    context: int
    """Longest text in tokens."""

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def body(self) -> nn.Module:
        """The decoder without its `lm_head`."""
        return self.network.base_model

    def block(self, layer: int) -> nn.Module:
        """Block `layer`, counted from 1."""
        return self.network.get_submodule(f"{self.architecture.blocks}.{layer - 1}")

    def part(self, layer: int, path: str) -> nn.Module:
        return self.block(layer).get_submodule(path)

    def sites(self, patterns: str | Sequence[str]) -> tuple[Site, ...]:
        return expand(patterns, layers=self.layers, heads=self.heads)


def load(
    folder: Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    tokenizer: Path | None = None,
    allow_pickle: bool = False,
) -> Model:
    """The model of a checkpoint folder, in evaluation mode.

    Raises:
        CheckpointFault: weights that are missing, cut short or not finite.
        BadInput: unknown architecture, or a tokenizer that is missing or of another vocabulary.
    """
    _quiet()
    network = _network(folder, dtype, allow_pickle)
    check_finite(network, folder)
    return _model(network.to(device).eval(), open_tokenizer(tokenizer or folder, network))


def untrained(
    folder: Path, *, seed: int, device: str = "cpu", dtype: torch.dtype = torch.float32, tokenizer: Path | None = None
) -> Model:
    """The same architecture with freshly initialised weights: the floor that training must beat."""
    _quiet()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = AutoModelForCausalLM.from_config(_config(folder), dtype=dtype)
    return _model(network.to(device).eval(), open_tokenizer(tokenizer or folder, network))


def _model(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Model:
    config = network.config
    architecture = architectures.find(config.model_type)
    heads = config.num_attention_heads
    try:
        projection = network.get_submodule(f"{architecture.blocks}.0.{architecture.heads_out}")
    except AttributeError as error:
        raise BadInput(
            f"{config.model_type} has no module {error}: its architecture table does not fit this version."
        ) from None
    return Model(
        network=network,
        architecture=architecture,
        tokenizer=tokenizer,
        layers=config.num_hidden_layers,
        heads=heads,
        d=config.hidden_size,
        d_head=_matrix(projection).shape[0] // heads,
        context=config.max_position_embeddings,
    )


TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "tokenizer_config.json",
)


def _quiet() -> None:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _config(folder: Path) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointFault(
            f"{folder} has no usable config.json ({_first_line(error)}). Is it a Hugging Face checkpoint?"
        ) from None


def _network(folder: Path, dtype: torch.dtype, allow_pickle: bool) -> PreTrainedModel:
    config = _config(folder)
    architectures.find(config.model_type)  # before the weights are read: an unknown family should cost nothing
    try:
        network, info = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            # None lets transformers fall back to .bin files, which it opens with weights_only=True.
            use_safetensors=None if allow_pickle else True,
            output_loading_info=True,
            # Else transformers says in a table on the terminal which tensors they are, and not in its exception.
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # safetensors and transformers raise half a dozen types for a broken file
        raise CheckpointFault(
            f"the weights of {folder} cannot be read ({_first_line(error)}). Fetch or save them again."
        ) from None
    missing = sorted(info["missing_keys"])
    mismatched = sorted(str(key[0]) for key in info["mismatched_keys"])
    if missing or mismatched:
        what = f"lack {missing[0]}" if missing else f"have another shape for {mismatched[0]}"
        count = len(missing) + len(mismatched)
        raise CheckpointFault(
            f"the weights of {folder} {what} ({count} tensors in all) although its config asks for it. Fetch them again."
        )
    return network


def check_finite(network: PreTrainedModel, folder: Path) -> None:
    """Refuse weights that hold NaN or infinity."""
    for name, parameter in network.named_parameters():
        # The sum of a tensor is finite exactly when no entry is NaN or infinite (or the sum overflows: then look closer).
        if not torch.isfinite(parameter.sum(dtype=torch.float32)) and not torch.isfinite(parameter).all():
            raise CheckpointFault(
                f"the weights of {folder} are not finite ({name} holds NaN or Inf). The run diverged, or the file is damaged."
            )


def open_tokenizer(folder: Path, network: PreTrainedModel) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder (or repository), if its vocabulary is the network's."""
    if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        # Transformers would make an empty one from config.json.
        raise BadInput(
            f"no usable tokenizer in {folder} (no tokenizer.json). Name one with --tokenizer FOLDER_OR_REPO."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # tokenizers raises bare Exception for a broken file
        raise BadInput(
            f"no usable tokenizer in {folder} ({_first_line(error)}). Name one with --tokenizer FOLDER_OR_REPO."
        ) from None
    rows = network.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise BadInput(
            f"the tokenizer of {folder} has {len(tokenizer)} tokens but the model embeds {rows}: they do not belong together. "
            "Name the right one with --tokenizer."
        )
    return tokenizer


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(" .:")[:160]


# --- reading and writing -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def reading(model: Model, wanted: Sequence[tuple[str, int]], sink: Sink) -> Iterator[None]:
    """While open, every forward pass hands `(part, layer, value)` of each wanted `(part, layer)` to `sink`.

    Reads see what writes opened before them have done. Values are `[batch, token, d]`; heads come side by side.
    """
    with contextlib.ExitStack() as hooks:
        for part, layer in wanted:
            hooks.enter_context(_hook(model, part, layer, _reader(part, layer, sink)))
        yield


@contextlib.contextmanager
def writing(model: Model, site: Site, edit: Edit) -> Iterator[None]:
    """While open, every forward pass goes on with `edit(h)` instead of `h` at `site`."""

    def replace(value: Tensor) -> Tensor:
        if site.head is None:
            return edit(value)
        inside = slice(site.head * model.d_head, (site.head + 1) * model.d_head)
        value = value.clone()
        value[..., inside] = edit(value[..., inside])
        return value

    with _hook(model, site.part, site.layer, replace):
        yield


def _reader(part: str, layer: int, sink: Sink) -> Callable[[Tensor], None]:
    def read(value: Tensor) -> None:
        sink(part, layer, value)

    return read


@contextlib.contextmanager
def _hook(model: Model, part: str, layer: int, visit: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    module, before = _module(model, part, layer)

    def on_input(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        # Blocks take their stream by position or as hidden_states=, depending on the family.
        value = args[0] if args else kwargs["hidden_states"]
        new = visit(value)
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    def on_output(_: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple | None:
        # Attention returns (value, pattern); older transformers return tuples from blocks, too.
        value = output[0] if isinstance(output, tuple) else output
        new = visit(value)
        if new is None:
            return None
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = (
        module.register_forward_pre_hook(on_input, with_kwargs=True)
        if before
        else module.register_forward_hook(on_output)
    )
    try:
        yield
    finally:
        handle.remove()


def _module(model: Model, part: str, layer: int) -> tuple[nn.Module, bool]:
    """The module to hook for a part, and whether its input (else its output) is meant."""
    table = model.architecture
    if part == "resid":
        return (model.block(1), True) if layer == 0 else (model.block(layer), False)
    if part == "norm":
        return model.network.get_submodule(table.final_norm), False
    path, before = {
        "attn": (table.attn, False),
        "mlp": (table.mlp, False),
        "head": (table.heads_out, True),
        "neuron": (table.neurons, True),
    }[part]
    return model.part(layer, path), before


# --- validation ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def validate(model: Model) -> None:
    """Check on the live model that each standard name means what it says.

    Raises:
        BadInput: a read differs from Hugging Face's own hidden states, heads do not sum to the attention output, or a write has no effect.
    """
    try:
        _check(model)
    except (AttributeError, RuntimeError) as error:  # a path that is not there, or shapes that do not fit
        raise _unfit(model, _first_line(error)) from None


def _check(model: Model) -> None:
    ids = torch.arange(12, device=model.device).view(2, 6) * 7 % model.network.get_input_embeddings().weight.shape[0]
    seen: dict[tuple[str, int], Tensor] = {}

    def keep(part: str, layer: int, value: Tensor) -> None:
        seen[part, layer] = value

    wanted = [("resid", layer) for layer in range(model.layers + 1)]
    wanted += [(part, layer) for layer in range(1, model.layers + 1) for part in ("attn", "head", "mlp", "neuron")] + [
        ("norm", 0)
    ]
    with reading(model, wanted, keep):
        theirs = model.body(input_ids=ids, output_hidden_states=True, use_cache=False)
    for layer in range(model.layers):
        _same(model, f"resid.{layer}", seen["resid", layer], theirs.hidden_states[layer])
    # Hugging Face's last hidden state is after the final norm; ours is before it.
    _same(model, f"resid.{model.layers} through the final norm", seen["norm", 0], theirs.last_hidden_state)
    for layer in range(1, model.layers + 1):
        through = heads_through_output(model, layer, seen["head", layer]).sum(-2) + output_bias(model, layer)
        _same(model, f"head.{layer}.* through W_O", through, seen["attn", layer])
        _same(
            model,
            f"neuron.{layer} through W_out",
            model.part(layer, model.architecture.neurons)(seen["neuron", layer]),
            seen["mlp", layer],
        )
    with writing(model, Site("resid", model.layers), torch.zeros_like), reading(model, [("norm", 0)], keep):
        model.body(input_ids=ids, use_cache=False)
    if torch.equal(seen["norm", 0], theirs.last_hidden_state):
        raise _unfit(model, "an edit of the last block's output changes nothing")


def heads_through_output(
    model: Model, layer: int, heads: Float[Tensor, "batch token heads_d_head"]
) -> Float[Tensor, "batch token head d"]:
    """What each head adds to the stream: its slice of the output projection applied to it, without the bias."""
    split = heads.unflatten(-1, (model.heads, model.d_head))
    weight = _matrix(model.part(layer, model.architecture.heads_out)).unflatten(0, (model.heads, model.d_head))
    return torch.einsum("bthi,hid->bthd", split, weight)


def output_bias(model: Model, layer: int) -> Float[Tensor, " d"]:
    bias = getattr(model.part(layer, model.architecture.heads_out), "bias", None)
    return bias if isinstance(bias, Tensor) else torch.zeros(model.d, device=model.device, dtype=model.network.dtype)


def _matrix(linear: nn.Module) -> Float[Tensor, "inside d"]:
    # nn.Linear stores [out, in]; GPT-2's Conv1D stores [in, out].
    weight: Tensor = linear.get_parameter("weight")
    return weight.T if isinstance(linear, nn.Linear) else weight


def _same(model: Model, what: str, ours: Tensor, theirs: Tensor) -> None:
    tolerance = 1e-4 if model.network.dtype == torch.float32 else 5e-2
    if ours.shape != theirs.shape or not torch.allclose(
        ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max())
    ):
        raise _unfit(model, f"{what} is not what the model computes")


def _unfit(model: Model, why: str) -> BadInput:
    return BadInput(
        f"{model.network.config.model_type} does not fit its architecture table: {why}. Correct the table in architectures/."
    )
