"""Which texts go through the network together, and what is wanted of each.

Rows of one pass have one length, or nearly: where a family is causal, a shorter text is filled up on the right, where no token
of its own can see the filling. So there is no mask to get wrong, and at most one computed token in fifty is filling.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

SPARE = 0.02
"""Filling, as a share of the real tokens, at most."""
OVERHEAD = 64
"""What one more pass costs, in tokens: about 6 ms of calls on a CPU where 1000 tokens of a small model take 140 ms."""


@dataclass(frozen=True)
class Read:
    """One row to be read: the tokens of one sequence, weighted."""

    sequence: int
    weights: Float[Tensor, " token"]


@dataclass(frozen=True)
class Scored:
    """One answer whose log-likelihood is wanted: the tokens of a sequence from `start` on."""

    sequence: int
    start: int


@dataclass(frozen=True)
class Workload:
    """What to run and what to keep of it; each sequence is run once, whoever wants something from it."""

    sequences: tuple[tuple[int, ...], ...]
    reads: tuple[Read, ...] = ()
    scored: tuple[Scored, ...] = ()
    content: tuple[Float[Tensor, " token"], ...] = ()
    """For each sequence, the weights with which its embeddings are averaged: what the network was given."""

    @property
    def tokens(self) -> int:
        return sum(map(len, self.sequences))


@dataclass(frozen=True)
class Batch:
    """Sequences that run together."""

    sequences: list[int]
    ids: Int[Tensor, "batch token"]
    lengths: list[int]
    """Real tokens of each row."""
    reads: list[int]
    read_rows: Int[Tensor, " read"]
    weights: Float[Tensor, "read token"]
    picks: Int[Tensor, " read"] | None
    """Where every read takes a single token: its place."""
    content: Float[Tensor, "batch token"]
    scored: list[tuple[int, int, int]]
    """(index of the answer, row, first token)."""


def batches(
    work: Workload, budget: int, device: torch.device, *, together: bool = True, only: Sequence[int] | None = None
) -> Iterator[Batch]:
    """All sequences, or these, in passes of about `budget` tokens; `together` lets lengths that differ share one."""
    reads, scored = defaultdict(list), defaultdict(list)
    for i, read in enumerate(work.reads):
        reads[read.sequence].append(i)
    for i, answer in enumerate(work.scored):
        scored[answer.sequence].append(i)
    # Answers want the whole depth, reads may stop early: they do not share a pass unless a sequence has both.
    for wants in (False, True):
        members = [s for s in (range(len(work.sequences)) if only is None else only) if bool(scored[s]) == wants]
        by_length = defaultdict(list)
        for s in members:
            length = len(work.sequences[s])
            by_length[filled(length) if together else length].append(s)
        for length, rows in sorted(by_length.items()):
            size = max(1, budget // length)
            for start in range(0, len(rows), size):
                yield _batch(work, rows[start : start + size], length, reads, scored, device)


def filled(length: int) -> int:
    """The length to which a text is filled up: at most a fiftieth more, and from its own length alone.

    What else is read must not decide it, else a run that grew would differ in the last digits from one made at once.
    """
    step = 1 + int(SPARE * length)
    return -(-length // step) * step


def _batch(
    work: Workload,
    members: list[int],
    length: int,
    reads: Mapping[int, list[int]],
    scored: Mapping[int, list[int]],
    device: torch.device,
) -> Batch:
    pairs = [(row, i) for row, s in enumerate(members) for i in reads[s]]
    lengths = [len(work.sequences[s]) for s in members]
    weights = torch.zeros(len(pairs), length)
    for place, (row, i) in enumerate(pairs):
        weights[place, : lengths[row]] = work.reads[i].weights
    single = (
        bool(((weights == 0).sum(-1) == length - 1).all()) and bool((weights.max(-1).values == 1).all())
        if pairs
        else False
    )
    ids, content = torch.zeros(len(members), length, dtype=torch.long), torch.zeros(len(members), length)
    for row, s in enumerate(members):
        ids[row, : lengths[row]] = torch.tensor(work.sequences[s])
        content[row, : lengths[row]] = work.content[s] if work.content else 1 / lengths[row]
    return Batch(
        sequences=members,
        ids=ids.to(device),
        lengths=lengths,
        reads=[i for _, i in pairs],
        read_rows=torch.tensor([row for row, _ in pairs], dtype=torch.long, device=device),
        weights=weights.to(device),
        picks=weights.argmax(-1).to(device) if single else None,
        content=content.to(device),
        scored=[(i, row, work.scored[i].start) for row, s in enumerate(members) for i in scored[s]],
    )
