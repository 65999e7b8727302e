"""Sentences that a model writes to prompts of the three tasks, checked by the recogniser."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ontogeny.studies.percolation._panel import Measured
from ontogeny.worlds import typed_sentences as typed


@torch.no_grad()
def answer_tasks(
    network: nn.Module, world: typed.World, tasks: Sequence[typed.Prompts], step: int
) -> Iterator[Measured]:
    """Shares of right sentences among those written freely, unscrambled, and with given words.

    Args:
        tasks: Prompts of each task, in the order of `typed_sentences.TASKS`.
    """
    for name, prompts in zip(typed.TASKS, tasks, strict=True):
        words, lengths, ended = complete_prompts(network, world, prompts, sample_seed=step if name == "write" else None)
        check = typed.check_sentences(world, words, lengths)
        right = ended & check.grammatical
        numbers = {
            "grammatical": right,
            "relations typed": right & check.relations_typed,
            "values typed": right & check.values_typed,
        }
        truth = prompts.answers
        if name == "order":
            width = truth.words.shape[1]
            same = (np.sort(words[:, :width], 1) == np.sort(truth.words, 1)).all(1) & (lengths <= width)
            numbers |= {
                "same words": ended & same,
                "right": right & same,
                "exact": ended & (words[:, :width] == truth.words).all(1),
            }
        elif name == "use":
            given = prompts.ids[:, 3:-1]
            present = ((given[:, :, None] == words[:, None, :]).any(2) | (given < world.entities[0])).all(1)
            typed_ = check.relations_typed & check.values_typed
            numbers |= {
                "same words": ended & present,
                "right but for types": right & present,
                "right": right & present & typed_,
            }
        for part, hits in numbers.items():
            yield Measured("task", step, float(hits.mean()), len(hits), {"task": name, "part": part})


@torch.no_grad()
def complete_prompts(
    network: nn.Module, world: typed.World, prompts: typed.Prompts, *, sample_seed: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Continue prompts up to `</s>`, at most one word more than `longest`.

    Args:
        sample_seed: Draw the words; None takes the most probable one.

    Returns:
        Words, filled with 0, their number, and whether the sentence ended.
    """
    most, end = world.config.longest + 1, world.vocabulary["</s>"]
    count, rows = len(prompts.ids), np.arange(len(prompts.ids))
    lengths = prompts.lengths.copy()
    ids = np.zeros((count, int(lengths.max()) + most), dtype=np.int64)
    ids[:, : prompts.ids.shape[1]] = prompts.ids
    draw = torch.Generator().manual_seed(sample_seed) if sample_seed is not None else None
    open_rows = np.ones(count, dtype=bool)
    for _ in range(most):
        at = rows[open_rows]
        widest = int(lengths[at].max())
        logits = network(input_ids=torch.from_numpy(ids[at, :widest]), use_cache=False).logits
        last = logits[torch.arange(len(at)), torch.from_numpy(lengths[at] - 1)]
        word = torch.multinomial(last.softmax(-1), 1, generator=draw)[:, 0] if draw else last.argmax(-1)
        ids[at, lengths[at]] = word.numpy()
        lengths[at] += 1
        open_rows[at] = word.numpy() != end
        if not open_rows.any():
            break
    written = lengths - prompts.lengths - ~open_rows
    words = np.zeros((count, most), dtype=np.int64)
    row, column = np.nonzero(np.arange(most) < written[:, None])
    words[row, column] = ids[row, prompts.lengths[row] + column]
    return words, written, ~open_rows
