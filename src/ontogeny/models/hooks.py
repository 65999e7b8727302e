"""The arguments of a forward pass: who calls with which tokens, masks and cache, and with which mask a block attends."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from ontogeny.sites import Site

_CallArguments = tuple[tuple[Any, ...], dict[str, Any]]


@contextlib.contextmanager
def call_hooks(model: Model, see: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """While open, `see` is handed the arguments of every forward pass by name, before it runs: ids, masks, the cache."""

    def on_call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = tuple(inspect.signature(type(module).forward).parameters)[1:]
        see({**dict(zip(names, args, strict=False)), **kwargs})

    # Either may be called alone: the body by who wants no logits, and OPT's network goes past its body.
    with contextlib.ExitStack() as handles:
        for module in dict.fromkeys((model.network, model.body)):
            handles.callback(module.register_forward_pre_hook(on_call, with_kwargs=True).remove)
        yield


@contextlib.contextmanager
def attention_hooks(model: Model, layer: int, edit: Callable[[Tensor | None, Tensor], Tensor]) -> Iterator[None]:
    """While open, block `layer` attends with `edit(mask, h)` in the place of its mask, which may be None; `h` goes into attention."""

    def on_call(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _CallArguments:
        if "attention_mask" not in kwargs:
            raise BadInput(
                f"the attention of {model.network.config.model_type} takes no mask by name, so it cannot be re-weighted. "
                "Choose a model of another family."
            )
        value = args[0] if args else kwargs["hidden_states"]
        return args, {**kwargs, "attention_mask": edit(kwargs["attention_mask"], value)}

    handle = model.part(layer, model.architecture.attn).register_forward_pre_hook(on_call, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


ActivationEdit = Callable[[Tensor], Tensor]


ActivationSink = Callable[[str, int, Tensor], None]


HookFunction = Callable[[Tensor], Tensor | None]


@contextlib.contextmanager
def read_hooks(model: Model, wanted: Sequence[tuple[str, int]], sink: ActivationSink) -> Iterator[None]:
    """While open, every forward pass hands `(part, layer, value)` of each wanted `(part, layer)` to `sink`.

    Reads see what writes opened before them have done. Values are `[batch, token, d]`; heads come side by side.
    """
    with contextlib.ExitStack() as hooks:
        for part, layer in wanted:
            hooks.enter_context(_hook(model, part, layer, _reader(model, part, layer, sink)))
        yield


@contextlib.contextmanager
def write_hooks(model: Model, site: Site, edit: ActivationEdit) -> Iterator[None]:
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


def _reader(model: Model, part: str, layer: int, sink: ActivationSink) -> Callable[[Tensor], None]:
    home = model.device

    def read(value: Tensor) -> None:
        sink(part, layer, value.to(home))  # itself, but where the network is spread

    return read


@contextlib.contextmanager
def _hook(model: Model, part: str, layer: int, visit: HookFunction) -> Iterator[None]:
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


@contextlib.contextmanager
def replace_forward(module: nn.Module, forward: object) -> Iterator[None]:
    """While open, another forward; what stood before, the class's own or a packed one, comes back."""
    own = module.__dict__.get("forward")
    module.forward = forward  # type: ignore[assignment]
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own
