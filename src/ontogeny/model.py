"""A Hugging Face model seen through standard names: load, validate, read, write. The only code with hooks.

Sites are read where `ontogeny.sites` says: `resid.0` enters block 1, `resid.l` leaves block l before the final norm, heads and
neurons are the inputs of the linear map that follows them.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ontogeny import architectures, spreading
from ontogeny.architectures import Architecture
from ontogeny.errors import BadInput
from ontogeny.opening import (
    check_finite,
    check_reads_texts,
    config_of,
    first_line,
    fresh,
    network_of,
    open_tokenizer,
    quiet,
)
from ontogeny.sites import Site, expand

Edit = Callable[[Tensor], Tensor]
"""What a write does: `h -> h` on the whole tensor at a site, `[batch, token, d]`."""
Sink = Callable[[str, int, Tensor], None]
"""What a read does with `(part, layer, value)`; it may raise to stop the forward pass."""

Visit = Callable[[Tensor], Tensor | None]
"""What a hook does with a value; None leaves it as it is."""


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
    quiet()
    check_reads_texts(folder)
    network = network_of(folder, dtype, allow_pickle)
    check_finite(network, folder)
    return of_network(spreading.put(network, device).eval(), open_tokenizer(tokenizer or folder, network))


def untrained(
    folder: Path, *, seed: int, device: str = "cpu", dtype: torch.dtype = torch.float32, tokenizer: Path | None = None
) -> Model:
    """The same architecture with freshly initialised weights: the floor that training must beat."""
    quiet()
    check_reads_texts(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = fresh(config_of(folder), dtype)
    return of_network(spreading.put(network, device).eval(), open_tokenizer(tokenizer or folder, network))


def of_network(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Model:
    """A network under its standard names.

    Raises:
        BadInput: its family is not known, or its table does not fit.
    """
    config = network.config.get_text_config()
    architecture = architectures.of(network)
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
        context=_patches(config) if architecture.images else _context(config, tokenizer),
    )


def _patches(config: PretrainedConfig) -> int:
    """Tokens of an image: its patches, and the class token."""
    sides = [(s, s) if isinstance(s, int) else tuple(s) for s in (config.image_size, config.patch_size)]
    return (sides[0][0] // sides[1][0]) * (sides[0][1] // sides[1][1]) + 1


def _context(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """What the config says; without positions (ALiBi) what the tokenizer was made for, 2048 where it does not say."""
    for told in (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length):
        if told and told < 10**9:
            return int(told)
    return 2048


# --- reading and writing -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def reading(model: Model, wanted: Sequence[tuple[str, int]], sink: Sink) -> Iterator[None]:
    """While open, every forward pass hands `(part, layer, value)` of each wanted `(part, layer)` to `sink`.

    Reads see what writes opened before them have done. Values are `[batch, token, d]`; heads come side by side.
    """
    with contextlib.ExitStack() as hooks:
        for part, layer in wanted:
            hooks.enter_context(_hook(model, part, layer, _reader(model, part, layer, sink)))
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


def _reader(model: Model, part: str, layer: int, sink: Sink) -> Callable[[Tensor], None]:
    home = model.device

    def read(value: Tensor) -> None:
        sink(part, layer, value.to(home))  # itself, but where the network is spread

    return read


@contextlib.contextmanager
def _hook(model: Model, part: str, layer: int, visit: Visit) -> Iterator[None]:
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

    with contextlib.ExitStack() as hooks:
        if model.architecture.flat_mlp and part in ("mlp", "mlp_resid", "neuron"):
            visit = hooks.enter_context(_in_rows(model.block(layer), visit))
        handle = (
            module.register_forward_pre_hook(on_input, with_kwargs=True)
            if before
            else module.register_forward_hook(on_output)
        )
        hooks.callback(handle.remove)
        yield


@contextlib.contextmanager
def _in_rows(block: nn.Module, visit: Visit) -> Iterator[Visit]:
    """While open, what a module inside the block takes as one row of all tokens is visited as `[batch, token, d]`."""
    shape: list[int] = []

    def note(_: nn.Module, args: tuple, kwargs: dict) -> None:
        shape[:] = (args[0] if args else kwargs["hidden_states"]).shape[:2]

    def in_rows(value: Tensor) -> Tensor | None:
        new = visit(value.unflatten(0, shape))
        return None if new is None else new.flatten(0, 1)

    handle = block.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield in_rows
    finally:
        handle.remove()


def _module(model: Model, part: str, layer: int) -> tuple[nn.Module, bool]:
    """The module to hook for a part, and whether its input (else its output) is meant."""
    table = model.architecture
    if part == "resid":
        return (model.block(1), True) if layer == 0 else (model.block(layer), False)
    if part == "norm":
        # Without a final norm the last block's output is what the body gives.
        last = model.network.get_submodule(table.final_norm) if table.final_norm else model.block(model.layers)
        return last, False
    path, before = {
        "attn": (table.attn, False),
        "mlp": (table.mlp, False),
        "attn_resid": (table.attn_added or table.attn, False),
        "mlp_resid": (table.mlp_added or table.mlp, False),
        "head": (table.heads_out, True),
        "neuron": (table.neurons, True),
    }[part]
    return model.part(layer, path), before


# --- validation ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def validate(model: Model, *, answers: bool = False) -> None:
    """Check on the live model that each standard name means what it says; with `answers` also the scores of the vocabulary.

    Raises:
        BadInput: a read differs from Hugging Face's own hidden states, heads do not sum to the attention output, a block is not
            the sum of its parts, a token of a causal family sees those behind it, or a write has no effect.
    """
    try:
        theirs = _check(model)
        if answers:
            whole = model.network(**_sample(model)).logits
            _same(model, "what the vocabulary is scored with", vocabulary(model, theirs), whole)
    except (AttributeError, RuntimeError) as error:  # a path that is not there, or shapes that do not fit
        raise _unfit(model, first_line(error)) from None


def _sample(model: Model) -> dict[str, Any]:
    """Two short texts as tokens, or two images."""
    config = model.network.config
    if model.architecture.images:
        sides = (config.image_size,) * 2 if isinstance(config.image_size, int) else tuple(config.image_size)
        shape = (2, config.num_channels, *sides)
        values = torch.arange(math.prod(shape), device=model.device).view(shape) * 7 % 255 / 127.5 - 1
        return {"pixel_values": values.to(model.network.dtype)}
    words = model.network.get_input_embeddings().weight.shape[0]
    return {"input_ids": torch.arange(12, device=model.device).view(2, 6) * 7 % words, "use_cache": False}


def _check(model: Model) -> Float[Tensor, "batch token d"]:
    """All checks but that of the vocabulary; gives what the body puts out."""
    given = _sample(model)
    shape = (2, model.context) if model.architecture.images else given["input_ids"].shape
    seen: dict[tuple[str, int], Tensor] = {}

    def keep(part: str, layer: int, value: Tensor) -> None:
        if value.shape[:2] != shape:
            raise _unfit(
                model, f"{part}.{layer} has the shape {list(value.shape)} where batch and token should come first"
            )
        seen[part, layer] = value.clone()  # Falcon goes on to change it in place

    inside = ("attn", "mlp", "attn_resid", "mlp_resid", "head", "neuron")
    wanted = [("resid", layer) for layer in range(model.layers + 1)] + [("norm", 0)]
    wanted += [(part, layer) for layer in range(1, model.layers + 1) for part in inside]
    with reading(model, wanted, keep):
        theirs = model.body(**given, output_hidden_states=True)
    for layer in range(model.layers):
        _same(model, f"resid.{layer}", seen["resid", layer], theirs.hidden_states[layer])
    # Hugging Face's last hidden state is after the final norm; ours is before it.
    _same(model, f"resid.{model.layers} through the final norm", seen["norm", 0], theirs.last_hidden_state)
    for layer in range(1, model.layers + 1):
        _check_parts(model, layer, {part: seen[part, layer] for part in inside})
        if model.architecture.final_norm:  # BERT normalises the stream itself: no sum
            added = seen["resid", layer - 1] + seen["attn_resid", layer] + seen["mlp_resid", layer]
            _same(model, f"the sum of resid.{layer - 1} and block {layer}'s parts", added, seen["resid", layer])
    if model.architecture.causal:
        short = model.body(**given | {"input_ids": given["input_ids"][:, :3]}).last_hidden_state
        _same(model, "a text without its end", short, theirs.last_hidden_state[:, :3])
    with writing(model, Site("resid", model.layers), torch.zeros_like), reading(model, [("norm", 0)], keep):
        model.body(**given)
    if torch.equal(seen["norm", 0], theirs.last_hidden_state.to(model.device)):
        raise _unfit(model, "an edit of the last block's output changes nothing")
    last: Tensor = theirs.last_hidden_state
    return last


def _check_parts(model: Model, layer: int, seen: Mapping[str, Tensor]) -> None:
    through = heads_through_output(model, layer, seen["head"]).sum(-2) + output_bias(model, layer)
    _same(model, f"head.{layer}.* through W_O", through, seen["attn"])
    out = model.part(layer, model.architecture.neurons)
    _same(model, f"neuron.{layer} through W_out", out(seen["neuron"]), seen["mlp"])


def vocabulary(model: Model, normed: Float[Tensor, "*token d"]) -> Float[Tensor, "*token vocab"]:
    """The scores that a causal model gives to each next token, from what its body puts out."""
    scores: Tensor = model.network.get_output_embeddings()(normed)
    return as_scored(model, scores)


def as_scored(model: Model, scores: Float[Tensor, "*row"]) -> Float[Tensor, "*row"]:
    """What a family does to its scores behind the unembedding, one by one."""
    config = model.network.config.get_text_config()
    if scale := getattr(config, "logit_scale", None):  # Cohere
        scores = scores * scale
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma 2
        scores = torch.tanh(scores / cap) * cap
    return scores


def heads_through_output(
    model: Model, layer: int, heads: Float[Tensor, "batch token heads_d_head"]
) -> Float[Tensor, "batch token head d"]:
    """What each head adds to the stream: its slice of the output projection applied to it, without the bias."""
    split = heads.unflatten(-1, (model.heads, model.d_head))
    weight = _matrix(model.part(layer, model.architecture.heads_out)).unflatten(0, (model.heads, model.d_head))
    return torch.einsum("bthi,hid->bthd", split, weight.to(split.device))


def output_bias(model: Model, layer: int) -> Float[Tensor, " d"]:
    bias = getattr(model.part(layer, model.architecture.heads_out), "bias", None)
    return (
        bias.to(model.device)
        if isinstance(bias, Tensor)
        else torch.zeros(model.d, device=model.device, dtype=model.network.dtype)
    )


def _matrix(linear: nn.Module) -> Float[Tensor, "inside d"]:
    # nn.Linear stores [out, in]; GPT-2's Conv1D stores [in, out].
    weight: Tensor = linear.get_parameter("weight")
    return weight.T if isinstance(linear, nn.Linear) else weight


def _same(model: Model, what: str, ours: Tensor, theirs: Tensor) -> None:
    ours, theirs = ours.to(model.device), theirs.to(model.device)
    tolerance = 1e-4 if model.network.dtype == torch.float32 else 5e-2
    if ours.shape != theirs.shape or not torch.allclose(
        ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max())
    ):
        raise _unfit(model, f"{what} is not what the model computes")


def _unfit(model: Model, why: str) -> BadInput:
    kind = model.network.config.model_type
    if model.architecture.guessed:
        return architectures.unserved(kind, f"what its structure suggests is not what it computes: {why}")
    return BadInput(f"{kind} does not fit its architecture table: {why}. Correct the table in architectures/.")
