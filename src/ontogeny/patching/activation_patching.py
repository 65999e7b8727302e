"""Activation patching, every layer × token, at the cost of what a patch can change (arXiv:2202.05262, 2504.02904 section 3).

A patch of the stream after block l at token t changes nothing before t and nothing up to block l. So the tokens before t are read from the
KV cache, the blocks up to l are skipped, and only blocks l + 1 … L run, on the tokens from t on, for all prompts of one length together.
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
from ontogeny.models.hooks import ActivationEdit, StopForward, read_hooks, write_hooks
from ontogeny.models.loading import first_error_line
from ontogeny.models.model import Model, next_token_logits, scale_logits
from ontogeny.patching.kv_cache import blocks_return_tuples, clone_cache, empty_cache, skip_blocks, view_from
from ontogeny.sites import Site

_PATCHING_TOLERANCE = 1e-3
"""Largest difference of a cached patch from a full forward pass, relative to 1 + |log odds|."""


@dataclass
class PatchingCost:
    """Tokens × blocks that ran, and that the patches of all cells need."""

    computed: int = 0
    needed: int = 0
    passes: int = 0
    note: str | None = None
    """Why patches ran as full forward passes, if they did."""


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
    """KV cache of the tokens that all prompts begin with."""

    ids: Int[Tensor, " token"]
    cache: Cache | None
    """None if patches run as full forward passes."""
    tuples: bool = False
    """Whether the blocks of this family return tuples."""


@dataclass(frozen=True, eq=False)
class BaselineRun:
    """Unpatched run: the streams, log odds and KV cache that patches start from."""

    prompts: PatchingPrompts
    """Their tokens after the prefix."""
    prefix: Prefix
    streams: Float[Tensor, "layer row token d"]
    """Residual stream of every layer, `resid.0` to `resid.L`."""
    odds: Float[Tensor, " row"]
    """log P(right) − log P(wrong) at the last token."""
    cache: Cache | None = field(repr=False, default=None)

    def half(self, first: bool) -> "BaselineRun":
        """The first or the second half of the rows."""
        middle = len(self.odds) // 2
        rows = slice(0, middle) if first else slice(middle, None)
        prompts = PatchingPrompts(self.prompts.ids[rows], self.prompts.right[rows], self.prompts.wrong[rows])
        cache = None if self.cache is None else view_from(self.cache, self.cache.get_seq_length(), rows)
        return BaselineRun(prompts, self.prefix, self.streams[:, rows], self.odds[rows], cache)


@torch.no_grad()
def run_prefix(model: Model, ids: Int[Tensor, " token"], cost: PatchingCost, *, whole: bool = False) -> Prefix:
    """Run the common prefix of all prompts, which may be empty; with `whole`, only keep its tokens.

    Raises:
        BadInput: a model that is not causal.
    """
    if not model.architecture.causal:
        raise BadInput(
            f"{model.network.config.model_type} is a masked language model and predicts no answer to patch: use a causal model."
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
    model: Model, prompts: PatchingPrompts, prefix: Prefix, cost: PatchingCost, *, edit: ActivationEdit | None = None
) -> BaselineRun:
    """Run prompts after their prefix and keep every layer's stream; `edit` changes their embeddings (`resid.0`)."""
    prompts = prompts.to(model.device)
    rows, tokens = prompts.ids.shape
    streams: list[Tensor] = []
    ends: list[Tensor] = []

    def sink(part: str, layer: int, value: Tensor) -> None:
        if part == "norm":
            ends.append(value[:, -1])
            raise StopForward
        streams.append(value[:, -tokens:].clone())

    wanted = [("resid", layer) for layer in range(model.layers + 1)] + [("norm", 0)]
    cache = None if prefix.cache is None else view_from(prefix.cache, len(prefix.ids))
    written = contextlib.nullcontext() if edit is None else write_hooks(model, Site("resid", 0), edit)
    with written, read_hooks(model, wanted, sink), contextlib.suppress(StopForward):
        if cache is None:
            model.body(input_ids=_prepend_prefix(prefix, prompts.ids), use_cache=False)
        else:
            model.body(input_ids=prompts.ids, past_key_values=cache, use_cache=True)
    cost.computed += rows * (tokens + (len(prefix.ids) if cache is None else 0)) * model.layers
    cost.needed += rows * tokens * model.layers
    cost.passes += 1
    return BaselineRun(
        prompts, prefix, torch.stack(streams), answer_log_odds(model, ends[0], prompts.right, prompts.wrong), cache
    )


@torch.no_grad()
def patch(
    model: Model,
    run: BaselineRun,
    values: Float[Tensor, "layer row token d"],
    where: Bool[Tensor, "layer row token"],
    cost: PatchingCost,
) -> Float[Tensor, "layer row token"]:
    """Log odds of each prompt with the stream after block l at token t replaced by `values`, one cell at a time.

    Cells that `where` leaves out, and those whose `values` equal the stream bit for bit, get the unpatched log odds without a pass.
    """
    values = values.to(run.streams)
    where = where.to(model.device) & (values != run.streams).any(-1)
    # After the last block only the last token reaches the answer.
    where[model.layers, :, :-1] = False
    odds = run.odds.expand(where.shape[0], where.shape[2], -1).transpose(1, 2).clone()
    cache = None if run.cache is None else clone_cache(run.cache)
    tokens = where.shape[2]
    for token in range(tokens - 1, -1, -1):
        for layer in range(model.layers + 1):
            rows = where[layer, :, token].nonzero()[:, 0]
            if not len(rows):
                continue
            cell = values[layer, rows, token]
            odds[layer, rows, token] = (
                patch_without_cache(model, run, rows, layer, token, cell, cost)
                if cache is None
                else _run_later_blocks(model, run, cache, rows, layer, token, cell, cost)
            )
            cost.needed += len(rows) * (tokens - token) * (model.layers - layer)
    return odds


def _run_later_blocks(
    model: Model,
    run: BaselineRun,
    cache: Cache,
    rows: Int[Tensor, " row"],
    layer: int,
    token: int,
    value: Float[Tensor, "row d"],
    cost: PatchingCost,
) -> Float[Tensor, " row"]:
    """Run the blocks after `layer` on the tokens from `token` on, with the KV cache of the tokens before."""
    stream = run.streams[layer, rows, token:].clone()
    stream[:, 0] = value
    prompts = run.prompts
    # A leading slice of rows shares the cache; other rows are copied.
    together: slice | Tensor = slice(0, len(rows)) if int(rows[-1]) == len(rows) - 1 else rows
    past = view_from(cache, len(run.prefix.ids) + token, together)
    site = Site("resid", layer)
    with (
        skip_blocks(model, layer, run.prefix.tuples),
        write_hooks(model, site, lambda _: stream),
        _stop_at(model, ("norm", 0)) as ends,
    ):
        model.body(input_ids=prompts.ids[rows, token:], past_key_values=past, use_cache=True)
    cost.computed += stream.shape[0] * stream.shape[1] * (model.layers - layer)
    cost.passes += 1
    return answer_log_odds(model, ends[0][:, -1], prompts.right[rows], prompts.wrong[rows])


@torch.no_grad()
def patch_without_cache(
    model: Model,
    run: BaselineRun,
    rows: Int[Tensor, " row"],
    layer: int,
    token: int,
    value: Float[Tensor, "row d"],
    cost: PatchingCost,
) -> Float[Tensor, " row"]:
    """The same by a full forward pass: the definition of a patch."""
    prefix, prompts = run.prefix, run.prompts
    at = len(prefix.ids) + token
    own = run.streams[0, rows]

    def put(h: Tensor) -> Tensor:
        h = h.clone()
        h[:, at] = value
        return h

    def enter(h: Tensor) -> Tensor:
        # The baseline may have run with edited embeddings.
        h = h.clone()
        h[:, len(prefix.ids) :] = own
        return h

    with (
        write_hooks(model, Site("resid", 0), enter),
        write_hooks(model, Site("resid", layer), put),
        _stop_at(model, ("norm", 0)) as ends,
    ):
        ids = _prepend_prefix(prefix, prompts.ids[rows])
        model.body(input_ids=ids, use_cache=False)
    cost.computed += ids.numel() * model.layers
    cost.passes += 1
    return answer_log_odds(model, ends[0][:, -1], prompts.right[rows], prompts.wrong[rows])


def why_inexact(
    model: Model, run: BaselineRun, values: Float[Tensor, "layer row token d"], token: int, cost: PatchingCost
) -> str | None:
    """Why a patch with the KV cache differs from the full forward pass for this model; None if it does not."""
    layer, row = model.layers // 2, torch.zeros(1, dtype=torch.long, device=model.device)
    value = values[layer, row, token].to(run.streams)
    plain = patch_without_cache(model, run, row, layer, token, value, cost)
    try:
        where = torch.zeros(run.streams.shape[:3], dtype=torch.bool, device=model.device)
        where[layer, 0, token] = True
        ours = patch(model, run, values, where, PatchingCost())
        cost.computed += (where.shape[2] - token) * (model.layers - layer)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        return (
            f"{model.network.config.model_type} cannot continue from cached keys and values: {first_error_line(error)}"
        )
    close = _PATCHING_TOLERANCE if model.network.dtype == torch.float32 else 0.05
    gap = float((ours[layer, 0, token] - plain[0]).abs() / (1 + plain[0].abs()))
    if gap <= close:
        return None
    return f"{model.network.config.model_type} with cached keys and values differs by {gap:.2g} from its whole pass"


def answer_log_odds(
    model: Model, normed: Float[Tensor, "row d"], right: Int[Tensor, " row"], wrong: Int[Tensor, " row"]
) -> Float[Tensor, " row"]:
    """log P(right) − log P(wrong) of the next token, from these two rows of the unembedding."""
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
    """Number of leading tokens that all rows share, without the last token of any row."""
    length = min(len(row) for row in rows) - 1
    for at in range(length):
        if any(row[at] != rows[0][at] for row in rows):
            return at
    return length


def _prepend_prefix(prefix: Prefix, ids: Int[Tensor, "row token"]) -> Int[Tensor, "row whole"]:
    return torch.cat([prefix.ids.expand(len(ids), -1), ids], 1)


@contextlib.contextmanager
def _stop_at(model: Model, part: tuple[str, int]) -> Iterator[list[Any]]:
    """Context manager: end a forward pass at this part and collect its value."""
    values: list[Tensor] = []

    def sink(_: str, __: int, value: Tensor) -> None:
        values.append(value)
        raise StopForward

    with contextlib.suppress(StopForward), read_hooks(model, [part], sink):
        yield values
