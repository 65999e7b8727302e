"""A second device without one: tensors that stem from a marked one must meet marked ones only, as on a GPU.

`.to(tensor)` and `device=` of a marked tensor mark what they make; reading numbers out (`tolist`, `float`, `cpu`) is free. As on a GPU,
tensors without axes and the places of an index may come from elsewhere.
"""

import traceback

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class SecondDevice(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.marked: set[int] = set()
        self.kept: list[torch.Tensor] = []
        """Else the address of a freed tensor would mark another one."""
        self.mixed: set[str] = set()
        self.moves = _Moves(self)

    def mark(self, tensor: torch.Tensor) -> torch.Tensor:
        self.marked.add(tensor.untyped_storage()._cdata)
        self.kept.append(tensor)
        return tensor

    def on(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self.marked

    def __enter__(self):
        self.moves.__enter__()
        return super().__enter__()

    def __exit__(self, *told):
        super().__exit__(*told)
        self.moves.__exit__(*told)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func._schema.name
        met = [t for t in tree_leaves((args, kwargs or {})) if isinstance(t, torch.Tensor)]
        if name.startswith("aten::index"):
            met = [t for t in args if isinstance(t, torch.Tensor)]
        sides = {self.on(t) for t in met if t.ndim > 0}
        if len(sides) > 1 and name != "aten::copy_":
            ours = [frame for frame in traceback.extract_stack() if "/ontogeny/" in frame.filename]
            self.mixed.add(" ".join([name, *(f"{at.filename}:{at.lineno} {at.line}" for at in ours[-1:])]))
        if any(map(self.on, met)):
            for tensor in tree_leaves(out):
                if isinstance(tensor, torch.Tensor):
                    self.mark(tensor)
        return out


class _Moves(TorchFunctionMode):
    """What moves to, or is made on, the device of another tensor."""

    def __init__(self, device: SecondDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        to = func is torch.Tensor.to and any(
            isinstance(a, torch.device) or (isinstance(a, torch.Tensor) and self.device.on(a)) for a in args[1:2]
        )
        like = getattr(func, "__name__", "").startswith("new_") and self.device.on(args[0])
        if to or like or kwargs.get("device") is not None:
            out = self.device.mark(out.clone())
        if func in (torch.Tensor.cpu,):
            out = out.clone()
            self.device.marked.discard(out.untyped_storage()._cdata)
        return out
