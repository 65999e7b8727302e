"""Capture: texts × sites -> pooled activations, at about the cost of a forward pass without `lm_head`.

All sites are read in one pass. Activations are pooled inside the hooks, so no `[batch, token, d]` tensor outlives its block; the
pass stops after the last wanted block, which is computed only at the tokens that are read.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from ontogeny.activations.batching import CaptureBatch, Workload, make_batches
from ontogeny.activations.first_block_memo import memoise_first_block, use_token_memo
from ontogeny.activations.prefix_sharing import PrefixGroup, group_by_prefix
from ontogeny.activations.sequence_packing import can_pack, pack_sequences, position_ids
from ontogeny.errors import BadInput
from ontogeny.models.forward import rope_switch
from ontogeny.models.hooks import ATTENTION_PARTS, StopForward, read_hooks, replace_forward
from ontogeny.models.kv_cache import copy_cache
from ontogeny.models.model import Model, next_token_logits
from ontogeny.models.onednn import packed_linears
from ontogeny.sites import HEAD_PARTS, Site


@dataclass
class CaptureCounts:
    """Cost of a capture; summed up in the ledger of a run."""

    forwards: int = 0
    """Number of sequences."""
    batches: int = 0
    tokens: int = 0
    """Computed tokens with padding, at most 2 % above `real_tokens`."""
    real_tokens: int = 0
    first_block_tokens: int = 0
    """Tokens for which the projections of the first block ran; the others came from the memo."""
    packed_linears: int = 0
    """Number of linear layers packed for oneDNN."""
    answer_rows: int = 0
    """Token positions at which logits were computed."""


@dataclass(frozen=True)
class CaptureResult:
    """Pooled activations and answer scores of a workload."""

    parts: Mapping[str, Float[Tensor, "site read d"]]
    """Pooled activations of each part, float32 on the model's device; sites in the order of `sites[part]`."""
    sites: Mapping[str, tuple[Site, ...]]
    inputs: Float[Tensor, "sequence d"]
    """Mean embedding of each sequence."""
    answers: Float[Tensor, " scored"]
    """Log-likelihood of each answer, nats."""
    counts: CaptureCounts = field(default_factory=CaptureCounts)


@torch.inference_mode()
def capture_workload(
    model: Model,
    work: Workload,
    sites: Sequence[Site],
    *,
    token_budget: int | None = None,
    share_prefixes: bool = False,
    on_batch: Callable[[int], None] | None = None,
) -> CaptureResult:
    """Read a workload at all sites and score its answers, in one pass over its sequences.

    Args:
        token_budget: Tokens per batch; by default 1024 on a CPU and 16384 elsewhere.
        share_prefixes: Whether to compute shared prefixes once.
        on_batch: Called with the number of sequences after each batch.

    Raises:
        BadInput: answers are to be scored by a model that is not causal.
    """
    if work.scored and not model.architecture.causal:
        raise BadInput(
            f"the model must be causal to score answers, got {model.network.config.model_type}: remove prompt, right and wrong "
            "from the concept."
        )
    budget = token_budget or (1024 if model.device.type == "cpu" else 16384)
    store = _PooledStore(model, work, sites)
    with packed_linears(model.body) as store.counts.packed_linears:
        _run_all(model, work, store, budget, share_prefixes, on_batch)
    return store.result()


def _run_all(
    model: Model,
    work: Workload,
    store: "_PooledStore",
    budget: int,
    share_prefixes: bool,
    on_batch: Callable[[int], None] | None,
) -> None:
    causal = model.architecture.causal
    switch = rope_switch(model)
    shared = causal and share_prefixes
    groups, rest = group_by_prefix(work, longest=switch) if shared else ([], list(range(len(work.sequences))))
    # Packed texts and sites of attention exchange the same function.
    in_attention = any(site.part in ATTENTION_PARTS for site in store.places)
    one_row = not in_attention and can_pack(model, max((len(work.sequences[s]) for s in rest), default=0))
    runs: list[tuple[_PrefixState | None, CaptureBatch]] = [
        (None, batch)
        for batch in make_batches(
            work, budget, model.device, together=causal, one_row=one_row, only=rest, switch=switch
        )
    ]
    for group in groups:
        prefix = _run_prefix(model, store, group)
        left = None if switch is None else switch - len(group.prefix)
        batches = make_batches(group.suffixes, budget, model.device, switch=left)
        runs += [(prefix, group.to_whole_workload(batch)) for batch in batches]
    for state, batch in runs:
        _run(model, store, batch, state)
        store.counts.forwards += len(batch.sequences)
        store.counts.batches += 1
        store.counts.tokens += batch.ids.numel()
        store.counts.real_tokens += sum(len(work.sequences[s]) for s in batch.sequences)
        if on_batch:
            on_batch(len(batch.sequences))


@dataclass(frozen=True)
class _PrefixState:
    """KV cache and embeddings of a shared prefix."""

    embedded: Float[Tensor, "token d"]
    keys_and_values: DynamicCache


def _run_prefix(model: Model, store: "_PooledStore", group: PrefixGroup) -> _PrefixState:
    """Run the shared prefix up to the last wanted block."""
    ids = torch.tensor([group.prefix], device=model.device)
    past, embedded = DynamicCache(config=model.network.config), []

    def sink(part: str, layer: int, value: Tensor) -> None:
        if (part, layer) == ("resid", 0):
            embedded.append(value[0].float())
        elif not group.suffixes.scored:
            raise StopForward

    with read_hooks(model, [("resid", 0), ("resid", max(1, store.last))], sink), contextlib.suppress(StopForward):
        model.body(input_ids=ids, past_key_values=past, use_cache=True)
    store.counts.batches += 1
    store.counts.tokens += ids.numel()
    return _PrefixState(embedded[0], past)


class _PooledStore:
    """Receives pooled activations from the hooks: one tensor per part, filled batch by batch."""

    def __init__(self, model: Model, work: Workload, sites: Sequence[Site]) -> None:
        self.sites: dict[str, tuple[Site, ...]] = {}
        for part in dict.fromkeys(site.part for site in sites):
            self.sites[part] = tuple(site for site in sites if site.part == part)
        self.parts: dict[str, Tensor] = {}
        self.places = {site: i for group in self.sites.values() for i, site in enumerate(group)}
        self.heads_of: dict[tuple[str, int], list[Site]] = defaultdict(list)
        for site in sites:
            if site.part in HEAD_PARTS:
                self.heads_of[site.part, site.layer].append(site)
        self.work, self.heads = work, model.heads
        self.device = model.device
        self.inputs = torch.zeros(len(work.sequences), model.d, device=self.device)
        self.answers = torch.full((len(work.scored),), torch.nan, device=self.device)
        self.counts = CaptureCounts()
        self.last = max((site.layer for site in sites), default=0)
        # No memo if the first block is the last wanted one, which runs only at the tokens that are read.
        self.memo = (
            memoise_first_block(model, work.sequences, inside_mlp="neuron" in self.sites) if self.last > 1 else None
        )

    def store(self, part: str, layer: int, rows: list[int], pooled: Float[Tensor, "read d"]) -> None:
        pooled = pooled.float()
        if part not in HEAD_PARTS:
            self._tensor_for(part, pooled.shape[-1])[self.places[Site(part, layer)], rows] = pooled  # type: ignore[arg-type]
            return
        split = pooled.unflatten(-1, (self.heads, -1))
        target = self._tensor_for(part, split.shape[-1])
        for site in self.heads_of[part, layer]:
            target[self.places[site], rows] = split[:, site.head]

    def _tensor_for(self, part: str, d: int) -> Float[Tensor, "site read d"]:
        # The width of a part, such as neurons, is known only when the first value arrives.
        if part not in self.parts:
            self.parts[part] = torch.empty(len(self.sites[part]), len(self.work.reads), d, device=self.device)
        return self.parts[part]

    def content_before(self, batch: CaptureBatch, length: int) -> Float[Tensor, "batch token"]:
        """Token weights of the shared prefix in each sequence's mean embedding."""
        if not self.work.content:
            return torch.stack([torch.full((length,), 1 / len(self.work.sequences[s])) for s in batch.sequences])
        return torch.stack([self.work.content[s][:length] for s in batch.sequences])

    def result(self) -> CaptureResult:
        return CaptureResult(self.parts, self.sites, self.inputs, self.answers, self.counts)


def _run(model: Model, store: _PooledStore, batch: CaptureBatch, prefix: _PrefixState | None = None) -> None:
    wanted_reads = {(site.part, site.layer) for site in store.places} if batch.reads else set()
    hooks = wanted_reads | {("resid", 0)} | ({("norm", 0)} if batch.scored else {("resid", store.last)})

    def sink(part: str, layer: int, value: Tensor) -> None:
        if (part, layer) == ("resid", 0):
            mean = _pool_with([(slice(None), content) for content in batch.content], batch, value.float())
            if prefix is not None:
                mean += store.content_before(batch, len(prefix.embedded)).to(mean) @ prefix.embedded
            store.inputs[batch.sequences] = mean
        if (part, layer) in wanted_reads:
            store.store(part, layer, batch.reads, _pool(batch, value))
        if part == "norm":
            _score(model, store, batch, value)
            raise StopForward
        if (part, layer) == ("resid", store.last) and not batch.scored:
            raise StopForward

    skipped = _skip_unread_tokens(model, store, batch)
    with read_hooks(model, sorted(hooks), sink), skipped, use_token_memo(store.memo, batch.ids) as computed:
        store.counts.first_block_tokens += computed
        try:
            if batch.one_row:
                with pack_sequences(model, batch.groups):
                    positions = position_ids(batch.groups).to(batch.ids)
                    model.body(input_ids=batch.ids, position_ids=positions, use_cache=False)
            elif prefix is None:
                model.body(input_ids=batch.ids, use_cache=False)
            else:
                past = copy_cache(prefix.keys_and_values)
                past.batch_repeat_interleave(len(batch.sequences))
                model.body(input_ids=batch.ids, past_key_values=past, use_cache=True)
        except StopForward:
            return


@contextlib.contextmanager
def _skip_unread_tokens(model: Model, store: _PooledStore, batch: CaptureBatch) -> Iterator[None]:
    """Compute the last wanted block only at the tokens that are read, since no later block attends to the others."""
    table, tokens = model.architecture, batch.token_indices
    # Not for an MLP that may mix tokens, or that sees all tokens as one row.
    known = not (table.is_inferred or table.flat_mlp)
    with contextlib.ExitStack() as hooks:
        if known and tokens is not None and store.last and not batch.scored and not store.sites.get("neuron"):
            # A mixture of experts takes its tokens in rows and columns.
            for path in (table.heads_out, *(() if table.router else (table.mlp,))):
                hooks.enter_context(_compute_only_at(model.part(store.last, path), tokens))
        yield


@contextlib.contextmanager
def _compute_only_at(module: nn.Module, places: Int[Tensor, " read"]) -> Iterator[None]:
    """Run a token-wise module at these tokens only; its output at the others is zero."""
    forward = module.forward

    def forward_at(x: Float[Tensor, "row token i"]) -> Float[Tensor, "row token o"]:
        where = places.to(x.device)
        computed = forward(x.flatten(0, 1)[where])
        output: Tensor = computed.new_zeros(x.shape[0] * x.shape[1], computed.shape[-1])
        output[where] = computed
        return output.unflatten(0, x.shape[:2])

    with replace_forward(module, forward_at):
        yield


def _pool(batch: CaptureBatch, value: Float[Tensor, "row token d"]) -> Float[Tensor, "read d"]:
    if batch.token_indices is not None:
        return value.flatten(0, 1)[batch.token_indices]
    return _pool_with(batch.weights, batch, value)


def _pool_with(
    weights: Sequence[tuple[Tensor | slice, Float[Tensor, "read token"]]],
    batch: CaptureBatch,
    value: Float[Tensor, "row token d"],
) -> Float[Tensor, "read d"]:
    """Weighted sums over each text's own tokens, so that other texts in the row do not change the last digit."""
    flat, pooled = value.flatten(0, 1), []
    for group, (texts, own) in zip(batch.groups, weights, strict=True):
        rows = flat[group.start : group.end].unflatten(0, (group.texts, -1))
        pooled.append(torch.einsum("rt,rtd->rd", own.to(value.dtype), rows[texts]))
    return torch.cat(pooled)


def _score(model: Model, store: _PooledStore, batch: CaptureBatch, normed: Float[Tensor, "row token d"]) -> None:
    flat, ids = normed.flatten(0, 1), batch.ids.flatten()
    for index, start, end in batch.scored:
        # Position t - 1 predicts token t, so an answer's first token is scored at the last token of its prompt.
        logits = next_token_logits(model, flat[start - 1 : end - 1]).float().to(store.device)
        targets = ids[start:end]
        store.answers[index] = logits.log_softmax(-1).gather(-1, targets[:, None]).sum()
        store.counts.answer_rows += len(targets)
