"""Activation patching, every layer × token, at the cost of what a patch can change (arXiv:2202.05262, 2504.02904 section 3).

A patch of the stream after block l at token t changes nothing before t and nothing up to block l. So the tokens before t stand as keys
and values, the blocks up to l are skipped, and what runs is blocks l + 1 … L on the tokens from t on, all prompts of a length together.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache

from ontogeny.errors import BadInput
from ontogeny.models.hooks import ActivationEdit, read_hooks, write_hooks
from ontogeny.models.loading import first_error_line
from ontogeny.models.model import Model, next_token_logits, scale_logits
from ontogeny.patching.kv_cache import blocks_return_tuples, copy_cache, empty_cache, skip_blocks, view_from
from ontogeny.sites import Site

_PATCHING_TOLERANCE = 1e-3
"""How far a patched pass may stand from the whole one before it is not trusted, relative to 1 + |log odds|."""


@dataclass
class PatchingCost:
    """Tokens × blocks that ran, and how many a patch of each cell needs."""

    computed: int = 0
    needed: int = 0
    passes: int = 0
    note: str | None = None
    """Why patches ran as whole passes, where they did."""


@dataclass(frozen=True, eq=False)
class PatchingPrompts:
    """Prompts of one length, each with the first token of a right and of a wrong answer."""

    ids: Int[Tensor, "row token"]
    right: Int[Tensor, " row"]
    wrong: Int[Tensor, " row"]

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> "PatchingPrompts":
        return PatchingPrompts(self.ids.to(device), self.right.to(device), self.wrong.to(device))


@dataclass(frozen=True, eq=False)
class Prefix:
    """What all prompts begin with, run once."""

    ids: Int[Tensor, " token"]
    cache: Cache | None
    """None: patches run as whole passes."""
    tuples: bool = False


@dataclass(frozen=True, eq=False)
class BaselineRun:
    """Prompts that ran: what their patched versions are measured against."""

    asked: PatchingPrompts
    """Their tokens behind the common start."""
    start: Prefix
    streams: Float[Tensor, "layer row token d"]
    """The stream of every layer, `resid.0` to `resid.L`."""
    odds: Float[Tensor, " row"]
    """log P(right) − log P(wrong) at the last token."""
    cache: Cache | None = field(repr=False, default=None)

    def half(self, first: bool) -> "BaselineRun":
        """The first or the second half of the rows."""
        middle = len(self.odds) // 2
        rows = slice(0, middle) if first else slice(middle, None)
        asked = PatchingPrompts(self.asked.ids[rows], self.asked.right[rows], self.asked.wrong[rows])
        cache = None if self.cache is None else view_from(self.cache, self.cache.get_seq_length(), rows)
        return BaselineRun(asked, self.start, self.streams[:, rows], self.odds[rows], cache)


@torch.no_grad()
def run_prefix(model: Model, ids: Int[Tensor, " token"], cost: PatchingCost, *, whole: bool = False) -> Prefix:
    """Run the common start of all prompts, which may be empty.

    Raises:
        BadInput: a model that foretells no next token.
    """
    if not model.architecture.causal:
        raise BadInput(
            f"{model.network.config.model_type} reads a text from both sides: a patch has no answer to change. Choose a causal model."
        )
    ids = ids.to(model.device)
    if whole:
        return Prefix(ids, None)
    cache, tuples = empty_cache(model.layers), blocks_return_tuples(model)
    cost.computed += model.layers
    if len(ids):
        with _stop_at(model, ("resid", model.layers)):
            model.body(input_ids=ids[None], past_key_values=cache, use_cache=True)
        cost.computed += len(ids) * model.layers
        cost.needed += len(ids) * model.layers
        cost.passes += 1
    return Prefix(ids, view_from(cache, len(ids)), tuples)


@torch.no_grad()
def run_baseline(
    model: Model, asked: PatchingPrompts, start: Prefix, cost: PatchingCost, *, edit: ActivationEdit | None = None
) -> BaselineRun:
    """Run prompts behind their start and keep every layer's stream; `edit` changes their embeddings (`resid.0`) on the way in."""
    asked = asked.to(model.device)
    rows, tokens = asked.ids.shape
    streams: list[Tensor] = []
    ends: list[Tensor] = []

    def sink(part: str, layer: int, value: Tensor) -> None:
        if part == "norm":
            ends.append(value[:, -1])
            raise _StopForward
        streams.append(value[:, -tokens:].clone())

    wanted = [("resid", layer) for layer in range(model.layers + 1)] + [("norm", 0)]
    cache = None if start.cache is None else view_from(start.cache, len(start.ids))
    written = contextlib.nullcontext() if edit is None else write_hooks(model, Site("resid", 0), edit)
    with written, read_hooks(model, wanted, sink), contextlib.suppress(_StopForward):
        if cache is None:
            model.body(input_ids=_prepend_prefix(start, asked.ids), use_cache=False)
        else:
            model.body(input_ids=asked.ids, past_key_values=cache, use_cache=True)
    cost.computed += rows * (tokens + (len(start.ids) if cache is None else 0)) * model.layers
    cost.needed += rows * tokens * model.layers
    cost.passes += 1
    return BaselineRun(
        asked, start, torch.stack(streams), answer_log_odds(model, ends[0], asked.right, asked.wrong), cache
    )


@torch.no_grad()
def patch(
    model: Model,
    standing: BaselineRun,
    values: Float[Tensor, "layer row token d"],
    where: Bool[Tensor, "layer row token"],
    cost: PatchingCost,
) -> Float[Tensor, "layer row token"]:
    """Log odds of each prompt with the stream after block l at token t replaced by `values`, one cell at a time.

    Where `where` is False, or where `values` are what stands bit for bit, nothing runs and the prompt's own log odds stand.
    """
    values = values.to(standing.streams)
    where = where.to(model.device) & (values != standing.streams).any(-1)
    # After the last block no token sees another.
    where[model.layers, :, :-1] = False
    found = standing.odds.expand(where.shape[0], where.shape[2], -1).transpose(1, 2).clone()
    cache = None if standing.cache is None else copy_cache(standing.cache)
    tokens = where.shape[2]
    for token in range(tokens - 1, -1, -1):
        for layer in range(model.layers + 1):
            rows = where[layer, :, token].nonzero()[:, 0]
            if not len(rows):
                continue
            cell = values[layer, rows, token]
            odds = (
                patch_without_cache(model, standing, rows, layer, token, cell, cost)
                if cache is None
                else _run_later_blocks(model, standing, cache, rows, layer, token, cell, cost)
            )
            found[layer, rows, token] = odds
            cost.needed += len(rows) * (tokens - token) * (model.layers - layer)
    return found


def _run_later_blocks(
    model: Model,
    standing: BaselineRun,
    cache: Cache,
    rows: Int[Tensor, " row"],
    layer: int,
    token: int,
    value: Float[Tensor, "row d"],
    cost: PatchingCost,
) -> Float[Tensor, " row"]:
    """Blocks after `layer` on the tokens from `token` on, behind the keys and values that stand."""
    stream = standing.streams[layer, rows, token:].clone()
    stream[:, 0] = value
    asked = standing.asked
    # Rows in order from the first share the memory; others are copied.
    together: slice | Tensor = slice(0, len(rows)) if int(rows[-1]) == len(rows) - 1 else rows
    past = view_from(cache, len(standing.start.ids) + token, together)
    site = Site("resid", layer)
    with (
        skip_blocks(model, layer, standing.start.tuples),
        write_hooks(model, site, lambda _: stream),
        _stop_at(model, ("norm", 0)) as ends,
    ):
        model.body(input_ids=asked.ids[rows, token:], past_key_values=past, use_cache=True)
    cost.computed += stream.shape[0] * stream.shape[1] * (model.layers - layer)
    cost.passes += 1
    return answer_log_odds(model, ends[0][:, -1], asked.right[rows], asked.wrong[rows])


@torch.no_grad()
def patch_without_cache(
    model: Model,
    standing: BaselineRun,
    rows: Int[Tensor, " row"],
    layer: int,
    token: int,
    value: Float[Tensor, "row d"],
    cost: PatchingCost,
) -> Float[Tensor, " row"]:
    """The same by a pass over all tokens and blocks: what a patch means, at its full price."""
    start, asked = standing.start, standing.asked
    at = len(start.ids) + token
    own = standing.streams[0, rows]

    def put(h: Tensor) -> Tensor:
        h = h.clone()
        h[:, at] = value
        return h

    def enter(h: Tensor) -> Tensor:
        # What stands may have been given other embeddings than its tokens'.
        h = h.clone()
        h[:, len(start.ids) :] = own
        return h

    with (
        write_hooks(model, Site("resid", 0), enter),
        write_hooks(model, Site("resid", layer), put),
        _stop_at(model, ("norm", 0)) as ends,
    ):
        ids = _prepend_prefix(start, asked.ids[rows])
        model.body(input_ids=ids, use_cache=False)
    cost.computed += ids.numel() * model.layers
    cost.passes += 1
    return answer_log_odds(model, ends[0][:, -1], asked.right[rows], asked.wrong[rows])


def why_inexact(
    model: Model, standing: BaselineRun, values: Float[Tensor, "layer row token d"], token: int, cost: PatchingCost
) -> str | None:
    """Why a patch behind standing keys and values is not what the whole pass gives, for this model; None where it is."""
    layer, row = model.layers // 2, torch.zeros(1, dtype=torch.long, device=model.device)
    value = values[layer, row, token].to(standing.streams)
    plain = patch_without_cache(model, standing, row, layer, token, value, cost)
    try:
        where = torch.zeros(standing.streams.shape[:3], dtype=torch.bool, device=model.device)
        where[layer, 0, token] = True
        ours = patch(model, standing, values, where, PatchingCost())
        cost.computed += (where.shape[2] - token) * (model.layers - layer)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        return f"{model.network.config.model_type} does not go on behind keys and values that stand: {first_error_line(error)}"
    close = _PATCHING_TOLERANCE if model.network.dtype == torch.float32 else 0.05
    gap = float((ours[layer, 0, token] - plain[0]).abs() / (1 + plain[0].abs()))
    if gap <= close:
        return None
    return f"{model.network.config.model_type} behind keys and values that stand is {gap:.2g} away from its whole pass"


def answer_log_odds(
    model: Model, normed: Float[Tensor, "row d"], right: Int[Tensor, " row"], wrong: Int[Tensor, " row"]
) -> Float[Tensor, " row"]:
    """log P(right) − log P(wrong) of the next token; only these two rows of the vocabulary are scored."""
    head = model.network.get_output_embeddings()
    chosen = torch.stack([right, wrong], 1)
    if type(head) is not nn.Linear:
        scores = next_token_logits(model, normed).gather(1, chosen)
    else:
        scores = torch.einsum("rd,rkd->rk", normed, head.weight[chosen])
        scores = scale_logits(model, scores if head.bias is None else scores + head.bias[chosen])
    scores = scores.float()
    return scores[:, 0] - scores[:, 1]


def common_prefix_length(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with; the last token of a row is never counted."""
    length = min(len(row) for row in rows) - 1
    for at in range(length):
        if any(row[at] != rows[0][at] for row in rows):
            return at
    return length


def _prepend_prefix(start: Prefix, ids: Int[Tensor, "row token"]) -> Int[Tensor, "row whole"]:
    return torch.cat([start.ids.expand(len(ids), -1), ids], 1)


class _StopForward(Exception):
    """What is wanted of a pass has been read."""


@contextlib.contextmanager
def _stop_at(model: Model, wanted: tuple[str, int]) -> Iterator[list[Any]]:
    """While open, a pass ends at this part, whose value is kept."""
    found: list[Tensor] = []

    def sink(_: str, __: int, value: Tensor) -> None:
        found.append(value)
        raise _StopForward

    with contextlib.suppress(_StopForward), read_hooks(model, [wanted], sink):
        yield found
