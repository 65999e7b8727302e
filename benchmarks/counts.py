"""Costs of a job that can be counted from outside: tokens, calls of `lm_head`, models built with weights, bytes read.

Counts do not depend on the machine, so a test can hold them where it could not hold seconds. Nothing here asks the job itself.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import nn
from transformers import AutoModelForCausalLM

KEYS = ("tokens", "lm_head calls", "models", "bytes")


def _has_weights(built: Any) -> int:
    """1 for a model with numbers in it, 0 for a skeleton on the meta device."""
    model = built[0] if isinstance(built, tuple) else built
    return int(next(model.parameters()).device.type != "meta")


@contextlib.contextmanager
def counting() -> Iterator[dict[str, int]]:
    """Count while open: tokens where ids are embedded, maps as wide as the vocabulary, models that transformers is asked
    for, and bytes that positioned reads put in place. What a job runs to check a model is counted too.
    """
    seen = dict.fromkeys(KEYS, 0)
    vocabularies: set[int] = set()

    def called(module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Embedding) and isinstance(args[0], torch.Tensor) and args[0].ndim == 2:
            vocabularies.add(module.num_embeddings)
            seen["tokens"] += args[0].numel()
        elif isinstance(module, nn.Linear) and module.out_features in vocabularies:
            seen["lm_head calls"] += 1

    def added(key: str, call: Callable[..., Any], amount: Callable[[Any], int]) -> Callable[..., Any]:
        def counted(*args: Any, **named: Any) -> Any:
            result = call(*args, **named)
            seen[key] += amount(result)
            return result

        return counted

    hook = nn.modules.module.register_module_forward_pre_hook(called)
    try:
        with contextlib.ExitStack() as patched:
            for name in ("from_pretrained", "from_config"):
                make = added("models", getattr(AutoModelForCausalLM, name), _has_weights)
                patched.enter_context(mock.patch.object(AutoModelForCausalLM, name, make))
            patched.enter_context(mock.patch.object(os, "preadv", added("bytes", os.preadv, int)))
            yield seen
    finally:
        hook.remove()
