"""Classifier-free guidance of text (arXiv:2306.17806): logits move away from those after another prompt.

`scale · logits(prompt) − (scale − 1) · logits(other prompt)`. With the prompt without its system prompt as the other one, the system
prompt counts more.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor

from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from ontogeny.steering.cached_prompts import run_with_cache
from ontogeny.steering.padding import pad_left


def check_guidance(scale: float) -> None:
    """Raise BadInput if the scale is not a finite number of at least 0."""
    if not 0 <= scale < math.inf:
        raise BadInput(f"`guidance` must be a finite number from 0 on, got {scale}: try 1.5, or 1 for none.")


def guided_logits(
    logits: Float[Tensor, "*row vocab"], other: Float[Tensor, "*row vocab"], scale: float
) -> Float[Tensor, "*row vocab"]:
    """The logits moved away from the other ones; with scale 1 they are returned as they are."""
    return logits if scale == 1 else logits.float() * scale - (scale - 1) * other.float()


class GuidanceProcessor(LogitsProcessor):
    """Guidance during a generation, with a KV cache of its own for the other prompts."""

    def __init__(self, model: Model, others: Sequence[Int[Tensor, " token"]], scale: float, *, cached: bool) -> None:
        self.model, self.scale = model, scale
        self.cache = DynamicCache(config=model.network.config) if cached else None
        self.ids, self.mask = (part.to(model.device) for part in pad_left(others, 0))
        self.prompt: int | None = None
        """Columns of the prompts of the generation."""

    def __call__(self, input_ids: Int[Tensor, "row token"], scores: Float[Tensor, "row vocab"]) -> Tensor:
        self.prompt = input_ids.shape[1] if self.prompt is None else self.prompt
        new = input_ids[:, self.prompt :]
        mask = torch.cat([self.mask, torch.ones_like(new)], 1)
        newest = new[:, -1:] if new.shape[1] else self.ids
        ids = torch.cat([self.ids, new], 1) if self.cache is None else newest
        other = run_with_cache(self.model, ids, mask, self.cache).logits[:, -1]
        return guided_logits(scores, other, self.scale)
