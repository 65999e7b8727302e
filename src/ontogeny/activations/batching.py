"""Batches by token budget.

If the model supports it, texts are packed into one row (`sequence_packing`). Otherwise the texts of a batch have about the same
length, and for causal models shorter ones are padded on the right, where no real token attends to the padding. So no mask is
needed, and at most 2 % of the tokens are padding.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.activations.sequence_packing import LengthGroup, offsets, segments
from ontogeny.models.forward import split_at_switch

_PADDING_SHARE = 0.02
"""Maximum share of padding."""
PASS_OVERHEAD_TOKENS = 64
"""Cost of one more forward pass, in tokens: about 6 ms on a CPU, where 1000 tokens of a small model take 140 ms."""


@dataclass(frozen=True)
class ActivationRead:
    """A weighted sum over the tokens of one sequence, to be read at every site."""

    sequence: int
    weights: Float[Tensor, " token"]


@dataclass(frozen=True)
class ScoredAnswer:
    """An answer to be scored by log-likelihood: the tokens of a sequence from `start` on."""

    sequence: int
    start: int


@dataclass(frozen=True)
class Workload:
    """Token sequences to run, each once, with the activations to read and the answers to score."""

    sequences: tuple[tuple[int, ...], ...]
    reads: tuple[ActivationRead, ...] = ()
    scored: tuple[ScoredAnswer, ...] = ()
    content: tuple[Float[Tensor, " token"], ...] = ()
    """Token weights of each sequence's mean embedding."""

    @property
    def tokens(self) -> int:
        return sum(map(len, self.sequences))

    def subset(self, reads: Sequence[int]) -> tuple["Workload", list[int]]:
        """The workload of these reads, each done once, and the index of each of them among its reads."""
        distinct = list(dict.fromkeys(reads))
        sequences = list(dict.fromkeys(self.reads[i].sequence for i in distinct))
        index = {sequence: i for i, sequence in enumerate(sequences)}
        work = Workload(
            sequences=tuple(self.sequences[s] for s in sequences),
            reads=tuple(ActivationRead(index[self.reads[i].sequence], self.reads[i].weights) for i in distinct),
            content=tuple(self.content[s] for s in sequences) if self.content else (),
        )
        place = {read: i for i, read in enumerate(distinct)}
        return work, [place[read] for read in reads]


@dataclass(frozen=True)
class CaptureBatch:
    """Sequences that run together; positions count tokens from the first of the first row."""

    sequences: list[int]
    ids: Int[Tensor, "row token"]
    groups: tuple[LengthGroup, ...]
    """Positions of the texts: one after another if packed, else one per row."""
    reads: list[int]
    token_indices: Int[Tensor, " read"] | None
    """Position of each read's token if every read takes a single one."""
    weights: tuple[tuple[Int[Tensor, " read"], Float[Tensor, "read token"]], ...]
    """Otherwise, for each group of texts, the texts that are read and their token weights."""
    content: tuple[Float[Tensor, "text token"], ...]
    """For each group, the token weights of the mean embedding."""
    scored: list[tuple[int, int, int]]
    """(index of the answer, position of its first token, position after its last)."""

    @property
    def one_row(self) -> bool:
        """Whether the sequences are packed into one row."""
        return len(self.sequences) > len(self.ids)


def make_batches(
    work: Workload,
    budget: int,
    device: torch.device,
    *,
    together: bool = True,
    one_row: bool = False,
    only: Sequence[int] | None = None,
    switch: int | None = None,
) -> Iterator[CaptureBatch]:
    """Split the sequences into batches.

    Args:
        budget: Tokens per batch, approximately.
        together: Whether sequences of slightly different lengths may share a batch.
        one_row: Whether to pack sequences of all lengths into one row.
        only: Indices of the sequences to run; by default all.
        switch: Length above which the model computes positions otherwise: no batch holds, or is padded to, both sides of it.
    """
    reads, scored = _indices(read.sequence for read in work.reads), _indices(a.sequence for a in work.scored)
    for answers in (False, True):
        # Answers need all blocks, reads may stop early: they share a batch only if a sequence has both.
        indices = range(len(work.sequences)) if only is None else only
        members = [s for s in indices if bool(scored[s]) == answers]
        if one_row:
            lengths = [len(ids) for ids in work.sequences]
            for side in split_at_switch(members, lengths, switch):
                for row in _pack_rows(side, lengths, budget):
                    yield _batch(work, row, None, reads, scored, device)
            continue
        by_length = defaultdict(list)
        for s in members:
            length = len(work.sequences[s])
            padded = padded_length(length) if together else length
            by_length[min(padded, switch) if switch and length <= switch else padded].append(s)
        for length, rows in sorted(by_length.items()):
            size = max(1, budget // length)
            for start in range(0, len(rows), size):
                yield _batch(work, rows[start : start + size], length, reads, scored, device)


def _indices(values: Iterable[int]) -> Mapping[int, list[int]]:
    """Positions of each value."""
    positions = defaultdict(list)
    for i, value in enumerate(values):
        positions[value].append(i)
    return positions


def _pack_rows(members: Sequence[int], lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Sequences sorted by length, in rows of at most `budget` tokens or of one sequence."""
    row, tokens = list[int](), 0
    for s in sorted(members, key=lambda s: lengths[s]):
        if row and tokens + lengths[s] > budget:
            yield row
            row, tokens = [], 0
        row.append(s)
        tokens += lengths[s]
    if row:
        yield row


def padded_length(length: int) -> int:
    """Length to which a text is padded, at most 2 % more.

    It depends on the text's own length only, so that a resumed run gives the same digits as an uninterrupted one.
    """
    step = 1 + int(_PADDING_SHARE * length)
    return -(-length // step) * step


def _batch(
    work: Workload,
    members: list[int],
    length: int | None,
    reads_of: Mapping[int, list[int]],
    scored_of: Mapping[int, list[int]],
    device: torch.device,
) -> CaptureBatch:
    """A batch of rows of this length, or without a length of one packed row."""
    own = [len(work.sequences[s]) for s in members]
    groups = (LengthGroup(0, len(members), length),) if length else offsets(own)
    ids, indices, single, weights, content, scored = list[int](), list[int](), True, [], [], []
    token_of: dict[int, int | None] = {}  # by identity: thousands of texts share a few vectors of weights
    for group, texts in zip(groups, segments(groups, members), strict=True):
        rows, vectors, means = list[int](), list[Tensor](), list[Tensor]()
        for row, s in enumerate(texts):
            start, tokens = group.start + row * group.length, len(work.sequences[s])
            ids += work.sequences[s]
            ids += [0] * (group.length - tokens)
            means.append(work.content[s] if work.content else torch.full((tokens,), 1 / tokens))
            scored += [(i, start + work.scored[i].start, start + tokens) for i in scored_of[s]]
            for i in reads_of[s]:
                own_weights = work.reads[i].weights
                if id(own_weights) not in token_of:
                    token_of[id(own_weights)] = _single_token(own_weights)
                token = token_of[id(own_weights)]
                rows.append(row)
                vectors.append(own_weights)
                indices.append(start + (token or 0))
                single = single and token is not None
        content.append(_padded_rows(means, group.length).to(device))
        stacked = _padded_rows(vectors, group.length)
        weights.append((torch.tensor(rows, dtype=torch.long, device=device), stacked.to(device)))
    return CaptureBatch(
        sequences=members,
        ids=torch.tensor(ids).view(len(members) if length else 1, -1).to(device),
        groups=groups,
        reads=[i for s in members for i in reads_of[s]],
        token_indices=torch.tensor(indices, dtype=torch.long, device=device) if indices and single else None,
        weights=tuple(weights),
        content=tuple(content),
        scored=scored,
    )


def _single_token(weights: Float[Tensor, " token"]) -> int | None:
    """The token that has all the weight; None if several share it."""
    at = int(weights.argmax())
    return at if float(weights[at]) == 1 and int(weights.count_nonzero()) == 1 else None


def _padded_rows(vectors: Sequence[Float[Tensor, " _"]], length: int) -> Float[Tensor, "row token"]:
    """Vectors as rows of this length, filled up with zeros."""
    if not vectors:
        return torch.zeros(0, length)
    if all(len(vector) == length for vector in vectors):
        return torch.stack(list(vectors))
    return torch.stack([torch.nn.functional.pad(vector, (0, length - len(vector))) for vector in vectors])
