"""The arguments of a forward pass: who calls with which tokens, masks and cache, and with which mask a block attends."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from ontogeny.errors import BadInput
from ontogeny.model import Model

Changed = tuple[tuple[Any, ...], dict[str, Any]]


@contextlib.contextmanager
def calling(model: Model, see: Callable[[dict[str, Any]], None]) -> Iterator[None]:
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
def attending(model: Model, layer: int, edit: Callable[[Tensor | None, Tensor], Tensor]) -> Iterator[None]:
    """While open, block `layer` attends with `edit(mask, h)` in the place of its mask, which may be None; `h` goes into attention."""

    def on_call(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed:
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
