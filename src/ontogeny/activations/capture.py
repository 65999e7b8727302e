"""Texts × sites -> pooled activations, at about the cost of a forward pass without `lm_head`.

Everything wanted from a checkpoint is read in one pass: rows are pooled inside the hooks, so nothing of shape
`[batch, token, d]` outlives its block, and a pass stops after the last wanted block, of which only the tokens that are read
are computed.
"""

import contextlib
import copy
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
from ontogeny.models.hooks import read_hooks, replace_forward
from ontogeny.models.model import Model, next_token_logits
from ontogeny.models.onednn import packed_linears
from ontogeny.sites import Site


@dataclass
class CaptureCounts:
    """What a pass cost; the ledger of a run adds these up."""

    forwards: int = 0
    """Sequences run through the network."""
    batches: int = 0
    tokens: int = 0
    """Tokens computed, padding included: at most 2 % above `real_tokens`."""
    real_tokens: int = 0
    first_block_tokens: int = 0
    """Tokens for which the first block's own maps ran; a word that comes again is not computed again."""
    packed_linears: int = 0
    """Linear maps that ran packed for oneDNN."""
    answer_rows: int = 0
    """Token positions at which the vocabulary was scored; whole sequences never are."""


@dataclass(frozen=True)
class CaptureResult:
    parts: Mapping[str, Float[Tensor, "site read d"]]
    """Pooled activations of each part, float32 on the model's device; sites in the order of `sites[part]`."""
    sites: Mapping[str, tuple[Site, ...]]
    inputs: Float[Tensor, "sequence d"]
    """Mean embedding of each sequence."""
    answers: Float[Tensor, " scored"]
    """Log-likelihood of each answer, nats."""
    counts: CaptureCounts = field(default_factory=CaptureCounts)


@torch.inference_mode()
def capture(
    model: Model,
    work: Workload,
    sites: Sequence[Site],
    *,
    token_budget: int | None = None,
    share_prefixes: bool = False,
    on_batch: Callable[[int], None] | None = None,
) -> CaptureResult:
    """Read all rows of `work` at all `sites` and score its answers, in one pass over its sequences."""
    if work.scored and not model.architecture.causal:
        raise BadInput(
            f"{model.network.config.model_type} reads a text from both sides and cannot be asked what comes next. "
            "Leave prompt, right and wrong out of the concept."
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
    together = model.architecture.causal
    groups, alone = group_by_prefix(work) if together and share_prefixes else ([], list(range(len(work.sequences))))
    one_row = can_pack(model, max((len(work.sequences[s]) for s in alone), default=0))
    runs: list[tuple[_PrefixState | None, CaptureBatch]] = [
        (None, batch)
        for batch in make_batches(work, budget, model.device, together=together, one_row=one_row, only=alone)
    ]
    for group in groups:
        shared = _run_prefix(model, store, group)
        runs += [(shared, group.back(batch)) for batch in make_batches(group.ends, budget, model.device)]
    for begun, batch in runs:
        _run(model, store, batch, begun)
        store.counts.forwards += len(batch.sequences)
        store.counts.batches += 1
        store.counts.tokens += batch.ids.numel()
        store.counts.real_tokens += sum(len(work.sequences[s]) for s in batch.sequences)
        if on_batch:
            on_batch(len(batch.sequences))


@dataclass(frozen=True)
class _PrefixState:
    """A beginning that several texts share, run once."""

    embedded: Float[Tensor, "token d"]
    keys_and_values: DynamicCache


def _run_prefix(model: Model, store: "_PooledStore", group: PrefixGroup) -> _PrefixState:
    """Run the shared beginning as deep as anything is read."""
    ids = torch.tensor([group.prefix], device=model.device)
    past, embedded = DynamicCache(config=model.network.config), []

    def sink(part: str, layer: int, value: Tensor) -> None:
        if (part, layer) == ("resid", 0):
            embedded.append(value[0].float())
        elif not group.ends.scored:
            raise _StopForward

    with read_hooks(model, [("resid", 0), ("resid", max(1, store.last))], sink), contextlib.suppress(_StopForward):
        model.body(input_ids=ids, past_key_values=past, use_cache=True)
    store.counts.batches += 1
    store.counts.tokens += ids.numel()
    return _PrefixState(embedded[0], past)


class _StopForward(Exception):
    """All that is wanted of a batch has been read."""


class _PooledStore:
    """Where the hooks put what they pooled: one tensor a part, filled batch by batch."""

    def __init__(self, model: Model, work: Workload, sites: Sequence[Site]) -> None:
        self.sites: dict[str, tuple[Site, ...]] = {}
        for part in dict.fromkeys(site.part for site in sites):
            self.sites[part] = tuple(site for site in sites if site.part == part)
        self.parts: dict[str, Tensor] = {}
        self.places = {site: i for group in self.sites.values() for i, site in enumerate(group)}
        self.heads_of: dict[int, list[Site]] = defaultdict(list)
        for site in self.sites.get("head", ()):
            self.heads_of[site.layer].append(site)
        self.work, self.d_head = work, model.d_head
        self.device = model.device
        self.inputs = torch.zeros(len(work.sequences), model.d, device=self.device)
        self.answers = torch.full((len(work.scored),), torch.nan, device=self.device)
        self.counts = CaptureCounts()
        self.last = max((site.layer for site in sites), default=0)
        # The last wanted block runs for the tokens that are read (below): where that is the first, words have no part in it.
        self.words = (
            memoise_first_block(model, work.sequences, inside_mlp="neuron" in self.sites) if self.last > 1 else None
        )

    def put(self, part: str, layer: int, rows: list[int], pooled: Float[Tensor, "read d"]) -> None:
        pooled = pooled.float()
        if part != "head":
            self._room(part, pooled.shape[-1])[self.places[Site(part, layer)], rows] = pooled  # type: ignore[arg-type]
            return
        room, split = self._room(part, self.d_head), pooled.unflatten(-1, (-1, self.d_head))
        for site in self.heads_of[layer]:
            room[self.places[site], rows] = split[:, site.head]

    def _room(self, part: str, d: int) -> Float[Tensor, "site read d"]:
        # The width of a part (neurons, say) is only known when the first value arrives.
        if part not in self.parts:
            self.parts[part] = torch.empty(len(self.sites[part]), len(self.work.reads), d, device=self.device)
        return self.parts[part]

    def content_before(self, batch: CaptureBatch, length: int) -> Float[Tensor, "batch token"]:
        """Weights with which the shared beginning counts in what each sequence of a pass was given."""
        if not self.work.content:
            return torch.stack([torch.full((length,), 1 / len(self.work.sequences[s])) for s in batch.sequences])
        return torch.stack([self.work.content[s][:length] for s in batch.sequences])

    def result(self) -> CaptureResult:
        return CaptureResult(self.parts, self.sites, self.inputs, self.answers, self.counts)


def _run(model: Model, store: _PooledStore, batch: CaptureBatch, begun: _PrefixState | None = None) -> None:
    wanted_reads = {(site.part, site.layer) for site in store.places} if batch.reads else set()
    hooks = wanted_reads | {("resid", 0)} | ({("norm", 0)} if batch.scored else {("resid", store.last)})

    def sink(part: str, layer: int, value: Tensor) -> None:
        if (part, layer) == ("resid", 0):
            given = _pool_with([(slice(None), content) for content in batch.content], batch, value.float())
            if begun is not None:
                given += store.content_before(batch, len(begun.embedded)).to(given) @ begun.embedded
            store.inputs[batch.sequences] = given
        if (part, layer) in wanted_reads:
            store.put(part, layer, batch.reads, _pool(batch, value))
        if part == "norm":
            _score(model, store, batch, value)
            raise _StopForward
        if (part, layer) == ("resid", store.last) and not batch.scored:
            raise _StopForward

    spared = _skip_unread_tokens(model, store, batch)
    with read_hooks(model, sorted(hooks), sink), spared, use_token_memo(store.words, batch.ids) as computed:
        store.counts.first_block_tokens += computed
        try:
            if batch.one_row:
                with pack_sequences(model, batch.alike):
                    ordered = position_ids(batch.alike).to(batch.ids)
                    model.body(input_ids=batch.ids, position_ids=ordered, use_cache=False)
            elif begun is None:
                model.body(input_ids=batch.ids, use_cache=False)
            else:
                past = copy.deepcopy(begun.keys_and_values)
                past.batch_repeat_interleave(len(batch.sequences))
                model.body(input_ids=batch.ids, past_key_values=past, use_cache=True)
        except _StopForward:
            return


@contextlib.contextmanager
def _skip_unread_tokens(model: Model, store: _PooledStore, batch: CaptureBatch) -> Iterator[None]:
    """Spare the last wanted block its work on tokens that nobody reads: nothing comes after it that could see them."""
    table = model.architecture
    # An MLP that is not known to treat each token alone runs whole, and so does one that does not see which token is which.
    known = not (table.guessed or table.flat_mlp)
    with contextlib.ExitStack() as spared:
        if known and batch.picks is not None and store.last and not batch.scored and not store.sites.get("neuron"):
            for path in (table.heads_out, table.mlp):
                spared.enter_context(_compute_only_at(model.part(store.last, path), batch.picks))
        yield


@contextlib.contextmanager
def _compute_only_at(module: nn.Module, places: Int[Tensor, " read"]) -> Iterator[None]:
    """While open, a module that treats each token alone computes these tokens and gives zeros for the others."""
    whole = module.forward

    def there(x: Float[Tensor, "row token i"]) -> Float[Tensor, "row token o"]:
        where = places.to(x.device)
        found = whole(x.flatten(0, 1)[where])
        spread: Tensor = found.new_zeros(x.shape[0] * x.shape[1], found.shape[-1])
        spread[where] = found
        return spread.unflatten(0, x.shape[:2])

    with replace_forward(module, there):
        yield


def _pool(batch: CaptureBatch, value: Float[Tensor, "row token d"]) -> Float[Tensor, "read d"]:
    if batch.picks is not None:
        return value.flatten(0, 1)[batch.picks]
    return _pool_with(batch.weights, batch, value)


def _pool_with(
    weights: Sequence[tuple[Tensor | slice, Float[Tensor, "read token"]]],
    batch: CaptureBatch,
    value: Float[Tensor, "row token d"],
) -> Float[Tensor, "read d"]:
    """Weighted sums over each text's own tokens: what else lies in the row must not show in a last digit."""
    flat, found = value.flatten(0, 1), []
    for alike, (texts, own) in zip(batch.alike, weights, strict=True):
        stretch = flat[alike.start : alike.end].unflatten(0, (alike.texts, -1))
        found.append(torch.einsum("rt,rtd->rd", own.to(value.dtype), stretch[texts]))
    return torch.cat(found)


def _score(model: Model, store: _PooledStore, batch: CaptureBatch, normed: Float[Tensor, "row token d"]) -> None:
    flat, ids = normed.flatten(0, 1), batch.ids.flatten()
    for index, start, end in batch.scored:
        # Position t - 1 predicts token t, so an answer's first token is scored where its prompt ends.
        logits = next_token_logits(model, flat[start - 1 : end - 1]).float().to(store.device)
        targets = ids[start:end]
        store.answers[index] = logits.log_softmax(-1).gather(-1, targets[:, None]).sum()
        store.counts.answer_rows += len(targets)
