"""What a job costs in things that can be counted, told from outside: forwards of each text, tokens computed, `lm_head`, models built, bytes read.

Counts do not depend on the machine, so a test can hold them where it could not hold seconds. Nothing here asks the job itself.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import torch
from torch import nn
from transformers import AutoModelForCausalLM

INPUT = Path("/proc/self/io")


@dataclass
class Counts:
    forwards: Counter[int] = field(default_factory=Counter)
    """By the index of the text."""
    tokens: int = 0
    """Computed in passes over texts, filling included."""
    other_rows: int = 0
    """Rows that are none of the texts: checks of a model, say."""
    lm_head_calls: int = 0
    """While texts were computed."""
    models_built: int = 0
    bytes_read: int | None = None
    """By read calls of this process; None where the system does not tell."""


@contextlib.contextmanager
def counting(texts: Sequence[Sequence[int]], vocabulary: int) -> Iterator[Counts]:
    """Count all that happens while open.

    A pass is seen where token ids are embedded, `lm_head` by its width, a model where transformers is asked for one.
    """
    counts = Counts()
    known = {tuple(text): i for i, text in enumerate(texts)}
    lengths = sorted({len(text) for text in texts}, reverse=True)
    of_texts = False

    def seen(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal of_texts
        if isinstance(module, nn.Embedding) and module.num_embeddings == vocabulary:
            found = [_text(row, known, lengths) for row in args[0].tolist()]
            of_texts = any(text is not None for text in found)
            counts.forwards.update(text for text in found if text is not None)
            counts.other_rows += found.count(None)
            counts.tokens += args[0].numel() if of_texts else 0
        elif isinstance(module, nn.Linear) and module.out_features == vocabulary:
            counts.lm_head_calls += of_texts

    def built(make):
        def counted(*args, **kwargs):
            counts.models_built += 1
            return make(*args, **kwargs)

        return counted

    hook = nn.modules.module.register_module_forward_pre_hook(seen)
    before = _bytes_read()
    try:
        with (
            mock.patch.object(AutoModelForCausalLM, "from_pretrained", built(AutoModelForCausalLM.from_pretrained)),
            mock.patch.object(AutoModelForCausalLM, "from_config", built(AutoModelForCausalLM.from_config)),
        ):
            yield counts
    finally:
        hook.remove()
        after = _bytes_read()
        counts.bytes_read = after - before if before is not None and after is not None else None


def _text(row: list[int], known: dict[tuple[int, ...], int], lengths: list[int]) -> int | None:
    """Which text a row holds: filling stands behind it."""
    return next((known[start] for n in lengths if (start := tuple(row[:n])) in known), None)


def _bytes_read() -> int | None:
    told = INPUT.read_text().split() if INPUT.is_file() else []
    return int(told[told.index("rchar:") + 1]) if "rchar:" in told else None
