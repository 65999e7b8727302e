"""Prefix sharing: run a prefix that several texts share (few-shot prompts, say) once and reuse its KV cache.

Used only if no token of the prefix is read, and if it saves more than the extra forward pass costs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ontogeny.activations.batching import PASS_OVERHEAD_TOKENS, ActivationRead, CaptureBatch, ScoredAnswer, Workload

MIN_SHARED_TOKENS = 8
"""Minimum length of a shared prefix."""


@dataclass(frozen=True)
class PrefixGroup:
    """Sequences of a workload that share a prefix, with a workload of their suffixes."""

    prefix: tuple[int, ...]
    suffixes: Workload
    sequences: tuple[int, ...]
    """Index of each suffix's sequence in the whole workload; likewise for reads and answers."""
    reads: tuple[int, ...]
    scored: tuple[int, ...]

    def to_whole_workload(self, batch: CaptureBatch) -> CaptureBatch:
        """A batch of suffixes with indices into the whole workload."""
        return replace(
            batch,
            sequences=[self.sequences[s] for s in batch.sequences],
            reads=[self.reads[i] for i in batch.reads],
            scored=[(self.scored[i], *where) for i, *where in batch.scored],
        )


def group_by_prefix(work: Workload, *, longest: int | None = None) -> tuple[list[PrefixGroup], list[int]]:
    """Groups worth sharing a prefix, and the indices of all other sequences; those above `longest` tokens share none."""
    free = _unread_prefix_lengths(work)
    order = sorted(
        (
            s
            for s in range(len(work.sequences))
            if free[s] >= MIN_SHARED_TOKENS and (longest is None or len(work.sequences[s]) <= longest)
        ),
        key=lambda s: work.sequences[s],
    )
    groups, grouped = [], set()
    for run in _neighbours_with_prefix(work, order):
        length = min([_common_length(work, run[0], run[-1]), *(free[s] for s in run)])
        if length >= MIN_SHARED_TOKENS and length * (len(run) - 1) >= 4 * PASS_OVERHEAD_TOKENS:
            groups.append(_shared(work, run, length))
            grouped.update(run)
    return groups, [s for s in range(len(work.sequences)) if s not in grouped]


def _unread_prefix_lengths(work: Workload) -> list[int]:
    """Number of tokens of each sequence before the first one that is read, and before its last."""
    free = [len(ids) - 1 for ids in work.sequences]
    for read in work.reads:
        first = int(read.weights.nonzero()[0])
        free[read.sequence] = min(free[read.sequence], first)
    for answer in work.scored:
        # An answer's first token is scored at the token before it.
        free[answer.sequence] = min(free[answer.sequence], answer.start - 1)
    return free


def _neighbours_with_prefix(work: Workload, order: Sequence[int]) -> list[list[int]]:
    """Runs of sequences in sorted order that share a prefix."""
    runs: list[list[int]] = []
    for s in order:
        if runs and _common_length(work, runs[-1][0], s) >= MIN_SHARED_TOKENS:
            runs[-1].append(s)
        else:
            runs.append([s])
    return [run for run in runs if len(run) > 1]


def _common_length(work: Workload, one: int, other: int) -> int:
    a, b = work.sequences[one], work.sequences[other]
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _shared(work: Workload, run: Sequence[int], length: int) -> PrefixGroup:
    local: Mapping[int, int] = {s: i for i, s in enumerate(run)}
    reads = [i for i, read in enumerate(work.reads) if read.sequence in local]
    scored = [i for i, answer in enumerate(work.scored) if answer.sequence in local]
    ends = Workload(
        sequences=tuple(work.sequences[s][length:] for s in run),
        reads=tuple(ActivationRead(local[work.reads[i].sequence], work.reads[i].weights[length:]) for i in reads),
        scored=tuple(ScoredAnswer(local[work.scored[i].sequence], work.scored[i].start - length) for i in scored),
        content=tuple(work.content[s][length:] for s in run) if work.content else (),
    )
    return PrefixGroup(work.sequences[run[0]][:length], ends, tuple(run), tuple(reads), tuple(scored))
