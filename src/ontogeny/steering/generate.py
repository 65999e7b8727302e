"""Generate text, steered or not: in batches, with a KV cache, greedy, sampled or with beams.

The forward passes are those of `generate` of transformers, which is called for beams, without a cache, and for families of its own way.

Prompts are padded on the left and positions counted from the attention mask. A sample is the argmax of the logits plus Gumbel noise, drawn
for each row from its prompt, its sample number and the seed, so that it does not depend on the rest of the batch.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, TopPLogitsWarper

from ontogeny.data.templates import Template, template_of
from ontogeny.data.tokenization import encode_texts
from ontogeny.errors import BadInput
from ontogeny.models.forward import rope_switch, split_at_switch
from ontogeny.models.model import Model
from ontogeny.steering.decoding import Prefill, can_decode, decode
from ontogeny.steering.guidance import GuidanceProcessor, check_guidance
from ontogeny.steering.padding import pad_left
from ontogeny.steering.steer import Edits, as_edits, check_can_generate, edits_for_prompts, steer


@dataclass(frozen=True)
class DecodingConfig:
    """How the next token is chosen."""

    tokens: int = 40
    """Maximum number of new tokens."""
    temperature: float = 0.0
    """0 for greedy decoding."""
    top_p: float = 1.0
    """Sample from the likeliest tokens that have this share of the probability."""
    beams: int = 1
    samples: int = 1
    """Continuations of each prompt."""
    seed: int = 0
    cache: bool = True
    """Use a KV cache; without it the numbers are the same, but slower."""
    batch: int = 16

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.batch < 1 or self.samples < 1 or self.beams < 1:
            raise BadInput(
                f"`tokens`, `beams`, `samples` and `batch` must be at least 1, got {self.tokens}, {self.beams}, {self.samples} and "
                f"{self.batch}: raise the smallest."
            )
        if not 0 <= self.temperature < float("inf") or not 0 < self.top_p <= 1:
            raise BadInput(
                f"`temperature` must be finite and at least 0, and `top_p` in (0, 1], got {self.temperature} and {self.top_p}."
            )
        if self.temperature == 0 and self.samples > self.beams:
            raise BadInput(
                f"`samples` must be 1 for greedy decoding, got {self.samples}: set `temperature`, or as many `beams`."
            )
        if self.temperature > 0 and self.beams > 1:
            raise BadInput("`beams` must be 1 for sampling: set `temperature` to 0, or use one beam.")


@dataclass(frozen=True)
class Continuation:
    """A continuation of one prompt."""

    prompt: str
    text: str
    ids: Int[Tensor, " token"]
    """Of the continuation, without the end token."""
    prompt_ids: Int[Tensor, " token"]


@torch.no_grad()
def generate(
    model: Model,
    prompts: Sequence[str],
    edits: Edits = (),
    how: DecodingConfig | None = None,
    *,
    template: Template = False,
) -> list[list[Continuation]]:
    """`how.samples` continuations of each prompt, in the order of the prompts.

    Args:
        template: In which each prompt is a user's turn; a model without its own continues it bare.

    Raises:
        BadInput: an empty prompt, one too long for the context, or an edit that does not fit.
    """
    how = how or DecodingConfig()
    check_can_generate(model)
    template = template_of(model.tokenizer, template)
    ids = [_tokenize_prompt(model, prompt, how.tokens, template) for prompt in prompts]
    return [
        [Continuation(prompt, continuation_text(model, row, new), new, row) for new in samples]
        for prompt, row, samples in zip(prompts, ids, continue_ids(model, ids, edits, how), strict=True)
    ]


@torch.no_grad()
def continue_ids(
    model: Model,
    ids: Sequence[Int[Tensor, " token"]],
    edits: Edits = (),
    how: DecodingConfig | None = None,
    *,
    against: Sequence[Int[Tensor, " token"]] = (),
    guidance: float = 1.0,
    prefill: Prefill | None = None,
) -> list[list[Int[Tensor, " token"]]]:
    """`how.samples` continuations of each tokenized prompt, without the end token, in the order of the prompts.

    Args:
        against: Another prompt for each, whose logits are guided away from.
        guidance: Scale of this classifier-free guidance; 1 for none.
        prefill: Runs a single prompt in the place of its own forward pass, as `decode` takes it; only where `can_decode` holds.

    Raises:
        BadInput: a masked model, an edit that does not fit, or guidance together with edits or beams.
    """
    how = how or DecodingConfig()
    check_can_generate(model)
    check_guidance(guidance)
    edited = any(not edit.what.is_noop for edit in as_edits(edits))
    if guidance != 1 and (len(against) != len(ids) or how.beams > 1 or edited):
        raise BadInput(
            f"`guidance` needs one other prompt for each of {len(ids)}, no beams and no edits, got {len(against)} other prompts, "
            f"{how.beams} beams and {len(edits)} edits: set it to 1, or leave these out."
        )
    # Sorted by length, for less padding.
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    continuations: dict[int, list[Tensor]] = {}
    # Prompts that may cross the switch while they are continued run apart from both others.
    switch, lengths = rope_switch(model), [len(row) for row in ids]
    sides = [
        part
        for side in split_at_switch(order, lengths, switch)
        for part in split_at_switch(side, [length + how.tokens for length in lengths], switch)
    ]
    for rows in (side[start : start + how.batch] for side in sides for start in range(0, len(side), how.batch)):
        others = [against[i] for i in rows] if guidance != 1 else []
        outputs = iter(
            _batch(model, [ids[i] for i in rows], edits_for_prompts(edits, rows), how, others, guidance, prefill)
        )
        for i in rows:
            continuations[i] = [next(outputs) for _ in range(how.samples)]
    return [continuations[i] for i in range(len(ids))]


def _tokenize_prompt(model: Model, prompt: str, room: int, template: Template) -> Int[Tensor, " token"]:
    ids = encode_texts(model.tokenizer, [prompt], [None], template=template)[0].ids
    if not len(ids):
        raise BadInput("a prompt must have tokens, got none: give it a word.")
    if len(ids) + room > model.context:
        raise BadInput(
            f"a prompt of {len(ids)} tokens and {room} new ones exceed the context of {model.context} tokens: shorten {prompt[:60]!r}, or "
            "lower `tokens`."
        )
    return ids


def _batch(
    model: Model,
    rows: Sequence[Tensor],
    edits: Edits,
    how: DecodingConfig,
    others: Sequence[Tensor],
    guidance: float,
    prefill: Prefill | None,
) -> list[Int[Tensor, " token"]]:
    ends = _end_tokens(model)
    padding = next((t for t in (model.tokenizer.pad_token_id, *ends) if t is not None), 0)
    ids, mask = pad_left(rows, padding)
    many = how.samples if how.temperature > 0 else 1
    ids, mask = ids.repeat_interleave(many, 0), mask.repeat_interleave(many, 0)
    processors = LogitsProcessorList(_sampling(rows, how) if how.temperature > 0 else [])
    if others:
        each = [row for row in others for _ in range(many)]
        processors.insert(0, GuidanceProcessor(model, each, guidance, cached=how.cache))
    ids, mask = ids.to(model.device), mask.to(model.device)
    with steer(model, edits, prompts=[len(row) for row in rows]):
        if how.beams == 1 and how.cache and can_decode(model):
            fixed: dict[str, Any] = {"ends": ends, "padding": padding, "processors": processors}
            new = decode(model, ids, mask, how.tokens, **fixed, prefill=prefill)
        else:
            new = _generated(model, ids, mask, how, ends, padding, processors)
    return [_truncate_at_end(row, ends) for row in new.cpu()]


def _generated(
    model: Model,
    ids: Int[Tensor, "row token"],
    mask: Int[Tensor, "row token"],
    how: DecodingConfig,
    ends: list[int],
    padding: int,
    processors: LogitsProcessorList,
) -> Int[Tensor, "row new"]:
    """New tokens by `generate` of transformers."""
    config = GenerationConfig(
        max_new_tokens=how.tokens,
        do_sample=False,
        num_beams=how.beams,
        num_return_sequences=how.samples if how.beams > 1 else 1,
        use_cache=how.cache,
        pad_token_id=padding,
        eos_token_id=ends or None,
        bos_token_id=model.tokenizer.bos_token_id,
    )
    with _reset_generation_config(model):
        whole: Tensor = model.network.generate(
            input_ids=ids, attention_mask=mask, generation_config=config, logits_processor=processors
        )
    return whole[:, ids.shape[1] :]


def _end_tokens(model: Model) -> list[int]:
    """Tokens that end a text; chat models have several, which only their generation config lists."""
    ends = getattr(model.network.generation_config, "eos_token_id", None)
    tokens = [*(ends if isinstance(ends, list) else [ends]), model.tokenizer.eos_token_id]
    return sorted({token for token in tokens if token is not None})


@contextlib.contextmanager
def _reset_generation_config(model: Model) -> Iterator[None]:
    """Ignore the generation config of the model's folder (a repetition penalty, say), which transformers would apply."""
    original = model.network.generation_config
    model.network.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.network.generation_config = original


def _truncate_at_end(ids: Int[Tensor, " token"], ends: Sequence[int]) -> Int[Tensor, " token"]:
    """The tokens before the first end token."""
    over = torch.isin(ids, torch.tensor(ends, dtype=ids.dtype)).nonzero()
    return ids[: int(over[0])] if len(over) else ids


def continuation_text(model: Model, prompt: Int[Tensor, " token"], ids: Int[Tensor, " token"]) -> str:
    """The text of the continuation after its prompt; decoded alone, a first token may lose its space."""
    before, whole = (
        str(model.tokenizer.decode(row, skip_special_tokens=True)) for row in (prompt, torch.cat([prompt, ids]))
    )
    return (
        whole.removeprefix(before)
        if whole.startswith(before)
        else str(model.tokenizer.decode(ids, skip_special_tokens=True))
    )


def _sampling(rows: Sequence[Tensor], how: DecodingConfig) -> list[LogitsProcessor]:
    keys = [(row, sample) for row in rows for sample in range(how.samples)]
    noise = [_GumbelNoise([_seed_generator(row, sample, how.seed) for row, sample in keys])]
    # top_p applies to the probabilities at this temperature, so the noise comes last.
    return [_Temperature(how.temperature), *([TopPLogitsWarper(how.top_p)] if how.top_p < 1 else []), *noise]


def _seed_generator(ids: Tensor, sample: int, seed: int) -> torch.Generator:
    digest = hashlib.sha256(repr((ids.tolist(), sample, seed)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


class _Temperature(LogitsProcessor):
    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
        return scores / self.temperature


class _GumbelNoise(LogitsProcessor):
    """The argmax of logits plus Gumbel noise is a sample from their softmax."""

    def __init__(self, streams: Sequence[torch.Generator]) -> None:
        self.streams = streams

    def __call__(self, input_ids: Tensor, scores: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
        drawn = torch.stack([torch.rand(scores.shape[1], generator=one, dtype=torch.float64) for one in self.streams])
        return scores.double() - (-drawn.clamp(min=1e-300).log()).log().to(scores.device)
