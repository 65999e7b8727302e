"""Hooks on a model: read and write activations, replace attention masks, see the arguments of forward passes.

All hooks are context managers and are removed when the block ends.
"""

import contextlib
import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from ontogeny.errors import BadInput
from ontogeny.models.attention_patterns import AttentionCall, pattern_hooks
from ontogeny.models.model import Model, output_weight_path
from ontogeny.sites import Site

ATTENTION_PARTS = ("query", "key")
"""Parts that are read where attention is computed."""
_CallArguments = tuple[tuple[Any, ...], dict[str, Any]]
ActivationEdit = Callable[[Tensor], Tensor]
"""Maps the whole tensor at a site, `[batch, token, d]`, to its replacement."""
ActivationSink = Callable[[str, int, Tensor], None]
"""Receives `(part, layer, value)`; may raise to stop the forward pass."""
HookFunction = Callable[[Tensor], Tensor | None]
"""Returns the replacement of a value, or None to keep it."""


class StopForward(Exception):
    """Raised by a sink to end a forward pass whose later layers are not needed; the caller suppresses it."""


@contextlib.contextmanager
def call_hooks(model: Model, on_arguments: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Before every forward pass, call `on_arguments` with its arguments by name: token ids, masks, the KV cache."""

    def on_call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = tuple(inspect.signature(type(module).forward).parameters)[1:]
        on_arguments({**dict(zip(names, args, strict=False)), **kwargs})

    # Both are hooked: the body is called directly where no logits are needed, and OPT's network bypasses its body.
    with contextlib.ExitStack() as handles:
        for module in dict.fromkeys((model.network, model.body)):
            handles.callback(module.register_forward_pre_hook(on_call, with_kwargs=True).remove)
        yield


@contextlib.contextmanager
def attention_hooks(model: Model, layer: int, edit: Callable[[Tensor | None, Tensor], Tensor]) -> Iterator[None]:
    """Replace the attention mask of block `layer` by `edit(mask, h)`; `mask` may be None, `h` is the input of attention.

    Raises:
        BadInput: the attention module of this family takes no mask by name.
    """

    def on_call(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _CallArguments:
        if "attention_mask" not in kwargs:
            raise BadInput(
                f"attention of {model.network.config.model_type} cannot be re-weighted because its module takes no mask by "
                "name: choose a model of another family."
            )
        value = args[0] if args else kwargs["hidden_states"]
        return args, {**kwargs, "attention_mask": edit(kwargs["attention_mask"], value)}

    handle = model.part(layer, model.architecture.attn).register_forward_pre_hook(on_call, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def read_hooks(model: Model, wanted: Sequence[tuple[str, int]], sink: ActivationSink) -> Iterator[None]:
    """In every forward pass, call `sink(part, layer, value)` for each wanted `(part, layer)`.

    Reads see the changes of `write_hooks` that were opened before. Values are `[batch, token, d]`; heads are concatenated.

    Raises:
        BadInput: neurons of a mixture of experts, each of which has its own, or queries and keys of a family whose attention cannot be
            reached.
    """
    in_attention = {(part, layer) for part, layer in wanted if part in ATTENTION_PARTS}
    with contextlib.ExitStack() as hooks:
        if in_attention:
            hooks.enter_context(pattern_hooks(model, _attention_reader(model, in_attention, sink)))
        for part, layer in wanted:
            if part not in ATTENTION_PARTS:
                hooks.enter_context(_hook(model, part, layer, _reader(model, part, layer, sink)))
        yield


def _attention_reader(
    model: Model, wanted: Collection[tuple[str, int]], sink: ActivationSink
) -> Callable[[AttentionCall], None]:
    """Hand queries and keys of the pass's own tokens to the sink, `[batch, token, head × d]`."""

    def read(call: AttentionCall) -> None:
        tokens = call.queries.shape[2]
        for part, value in (("query", call.queries), ("key", call.keys[:, :, -tokens:])):
            if (part, call.layer) in wanted:
                sink(part, call.layer, value.transpose(1, 2).flatten(2).to(model.device))

    return read


@contextlib.contextmanager
def write_hooks(model: Model, site: Site, edit: ActivationEdit) -> Iterator[None]:
    """In every forward pass, replace the activation `h` at `site` by `edit(h)`.

    Raises:
        BadInput: the site is a router, whose choice of experts does not follow from a changed logit, neurons of a mixture of experts, or
            queries and keys.
    """
    if site.part in ATTENTION_PARTS:
        raise BadInput(
            f"{site} can be read and not changed: change attention with Reweight, or head.{site.layer}.{site.head}."
        )
    if site.part == "router":
        raise BadInput(f"{site} can be read and not changed: change mlp.{site.layer}, the output of its experts.")

    def replace(value: Tensor) -> Tensor:
        if site.head is None:
            return edit(value)
        inside = slice(site.head * model.d_head, (site.head + 1) * model.d_head)
        value = value.clone()
        value[..., inside] = edit(value[..., inside])
        return value

    with _hook(model, site.part, site.layer, replace):
        yield


def _reader(model: Model, part: str, layer: int, sink: ActivationSink) -> Callable[[Tensor], None]:
    home = model.device

    def read(value: Tensor) -> None:
        sink(part, layer, value.to(home))  # a copy only if the network is on several devices

    return read


@contextlib.contextmanager
def _hook(model: Model, part: str, layer: int, visit: HookFunction) -> Iterator[None]:
    module, before = _module(model, part, layer)

    def on_input(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        # Depending on the family, blocks take the residual stream by position or as hidden_states=.
        value = args[0] if args else kwargs["hidden_states"]
        new = visit(value)
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    def on_output(_: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple | None:
        # Attention returns (value, pattern); in older transformers blocks return tuples, too.
        value = output[0] if isinstance(output, tuple) else output
        new = visit(value)
        if new is None:
            return None
        return (new, *output[1:]) if isinstance(output, tuple) else new

    with contextlib.ExitStack() as hooks:
        if part == "router" or (model.architecture.flat_mlp and part in ("mlp", "mlp_resid", "neuron")):
            visit = hooks.enter_context(_row_hook(model.block(layer), visit))
        handle = (
            module.register_forward_pre_hook(on_input, with_kwargs=True)
            if before
            else module.register_forward_hook(on_output)
        )
        hooks.callback(handle.remove)
        yield


@contextlib.contextmanager
def _row_hook(block: nn.Module, visit: HookFunction) -> Iterator[HookFunction]:
    """For modules in the block that see all tokens as one row: reshape to `[batch, token, d]` for `visit`, and back."""
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
    """The module to hook for a part, and whether to hook its input (else its output)."""
    table = model.architecture
    if part == "neuron":
        return model.part(layer, output_weight_path(model, Site("neuron", layer))), True
    if part == "resid":
        return (model.block(1), True) if layer == 0 else (model.block(layer), False)
    if part == "norm":
        # Without a final norm the body returns the last block's output.
        last = model.network.get_submodule(table.final_norm) if table.final_norm else model.block(model.layers)
        return last, False
    path, before = {
        "attn": (table.attn, False),
        "mlp": (table.mlp, False),
        "attn_resid": (table.attn_added or table.attn, False),
        "mlp_resid": (table.mlp_added or table.mlp, False),
        "head": (table.heads_out, True),
        "router": (table.router, False),
    }[part]
    return model.part(layer, path), before


@contextlib.contextmanager
def replace_forward(module: nn.Module, forward: object) -> Iterator[None]:
    """Replace a module's `forward`; afterwards restore the previous one (the class's own or a packed one)."""
    previous = module.__dict__.get("forward")
    module.forward = forward  # type: ignore[assignment]
    try:
        yield
    finally:
        del module.forward
        if previous is not None:
            module.forward = previous
