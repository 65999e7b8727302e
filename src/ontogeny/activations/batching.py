"""Which texts go through the network together, and what is wanted of each.

Texts lie end to end in one row where the model allows it (`end_to_end`). Else the rows of one pass have one length, or nearly: where
a family is causal, a shorter text is filled up on the right, where no token of its own can see the filling. So there is no mask to
get wrong, and at most one computed token in fifty is filling.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.activations.sequence_packing import LengthGroup, offsets, segments

_PADDING_SHARE = 0.02
"""Filling, as a share of the real tokens, at most."""
PASS_OVERHEAD_TOKENS = 64
"""What one more pass costs, in tokens: about 6 ms of calls on a CPU where 1000 tokens of a small model take 140 ms."""


@dataclass(frozen=True)
class ActivationRead:
    """One row to be read: the tokens of one sequence, weighted."""

    sequence: int
    weights: Float[Tensor, " token"]


@dataclass(frozen=True)
class ScoredAnswer:
    """One answer whose log-likelihood is wanted: the tokens of a sequence from `start` on."""

    sequence: int
    start: int


@dataclass(frozen=True)
class Workload:
    """What to run and what to keep of it; each sequence is run once, whoever wants something from it."""

    sequences: tuple[tuple[int, ...], ...]
    reads: tuple[ActivationRead, ...] = ()
    scored: tuple[ScoredAnswer, ...] = ()
    content: tuple[Float[Tensor, " token"], ...] = ()
    """For each sequence, the weights with which its embeddings are averaged: what the network was given."""

    @property
    def tokens(self) -> int:
        return sum(map(len, self.sequences))


@dataclass(frozen=True)
class CaptureBatch:
    """Sequences that run together; places count tokens from the first of the first row."""

    sequences: list[int]
    ids: Int[Tensor, "row token"]
    alike: tuple[LengthGroup, ...]
    """Where the texts lie: one after another where they share a row, else a row for each."""
    reads: list[int]
    picks: Int[Tensor, " read"] | None
    """Where every read takes a single token: its place."""
    weights: tuple[tuple[Int[Tensor, " read"], Float[Tensor, "read token"]], ...]
    """Else, of each stretch of texts alike, which of them are read and how their tokens are weighted."""
    content: tuple[Float[Tensor, "text token"], ...]
    """Of each stretch, the weights with which embeddings are averaged."""
    scored: list[tuple[int, int, int]]
    """(index of the answer, place of its first token, place behind its last)."""

    @property
    def one_row(self) -> bool:
        return len(self.sequences) > len(self.ids)


def make_batches(
    work: Workload,
    budget: int,
    device: torch.device,
    *,
    together: bool = True,
    one_row: bool = False,
    only: Sequence[int] | None = None,
) -> Iterator[CaptureBatch]:
    """All sequences, or these, in passes of about `budget` tokens.

    `together` lets lengths that differ a little share a pass, `one_row` lays texts of all lengths end to end.
    """
    wants = _SequenceUses.of(work)
    for answers in (False, True):
        # Answers want the whole depth, reads may stop early: they do not share a pass unless a sequence has both.
        everyone = range(len(work.sequences)) if only is None else only
        members = [s for s in everyone if bool(wants.scored[s]) == answers]
        if one_row:
            for row in _pack_rows(members, [len(ids) for ids in work.sequences], budget):
                yield _batch(work, row, None, wants, device)
            continue
        by_length = defaultdict(list)
        for s in members:
            length = len(work.sequences[s])
            by_length[padded_length(length) if together else length].append(s)
        for length, rows in sorted(by_length.items()):
            size = max(1, budget // length)
            for start in range(0, len(rows), size):
                yield _batch(work, rows[start : start + size], length, wants, device)


@dataclass(frozen=True)
class _SequenceUses:
    """Which reads and answers each sequence has."""

    reads: Mapping[int, list[int]]
    scored: Mapping[int, list[int]]

    @classmethod
    def of(cls, work: Workload) -> "_SequenceUses":
        wants = cls(defaultdict(list), defaultdict(list))
        for i, read in enumerate(work.reads):
            wants.reads[read.sequence].append(i)
        for i, answer in enumerate(work.scored):
            wants.scored[answer.sequence].append(i)
        return wants


def _pack_rows(members: Sequence[int], lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Members in the order of their lengths, in rows of at most the budget, or of one text."""
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
    """The length to which a text is filled up: at most a fiftieth more, and from its own length alone.

    What else is read must not decide it, else a run that grew would differ in the last digits from one made at once.
    """
    step = 1 + int(_PADDING_SHARE * length)
    return -(-length // step) * step


def _batch(
    work: Workload, members: list[int], length: int | None, wants: _SequenceUses, device: torch.device
) -> CaptureBatch:
    """Members in rows of this length, or, without one, end to end in one row."""
    own = [len(work.sequences[s]) for s in members]
    alike = (LengthGroup(0, len(members), length),) if length else offsets(own)
    ids = torch.zeros(1, alike[-1].end, dtype=torch.long)
    picks, single, weights, content, scored = list[int](), True, [], [], []
    for one, texts in zip(alike, segments(alike, members), strict=True):
        rows, stretch, given = list[int](), list[Tensor](), torch.zeros(one.texts, one.length)
        for row, s in enumerate(texts):
            start, tokens = one.start + row * one.length, len(work.sequences[s])
            ids[0, start : start + tokens] = torch.tensor(work.sequences[s])
            given[row, :tokens] = work.content[s] if work.content else 1 / tokens
            scored += [(i, start + work.scored[i].start, start + tokens) for i in wants.scored[s]]
            for i in wants.reads[s]:
                found = work.reads[i].weights
                rows.append(row)
                stretch.append(torch.nn.functional.pad(found, (0, one.length - len(found))))
                picks.append(start + int(found.argmax()))
                single = single and float(found.max()) == 1 and int(found.count_nonzero()) == 1
        content.append(given.to(device))
        together = torch.stack(stretch) if stretch else torch.zeros(0, one.length)
        weights.append((torch.tensor(rows, dtype=torch.long, device=device), together.to(device)))
    return CaptureBatch(
        sequences=members,
        ids=(ids.view(len(members), length) if length else ids).to(device),
        alike=alike,
        reads=[i for s in members for i in wants.reads[s]],
        picks=torch.tensor(picks, dtype=torch.long, device=device) if picks and single else None,
        weights=tuple(weights),
        content=tuple(content),
        scored=scored,
    )
