"""Project folder: stages of a training pipeline as subfolders (`pretrain/`, `sft/`, `dpo/`), ordered by their names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ontogeny.errors import BadInput
from ontogeny.lineage import manifest

_STAGE_WORDS: tuple[tuple[str, ...], ...] = (
    ("pretrain", "pretraining", "pretrained", "base", "pt"),
    ("cpt", "midtrain", "midtraining", "annealing", "anneal", "continued", "longcontext"),
    ("sft", "instruct", "it", "finetune", "finetuning", "finetuned", "chat"),
    ("dpo", "kto", "orpo", "simpo", "ipo", "apo"),
    ("ppo", "rlhf", "grpo", "rl", "rlvr", "rloo"),
)
"""Words for the stages of a pipeline, in the order in which they follow each other."""
_NUMBERED = re.compile(r"(?:stage|phase|part)?[-_]?0*(\d+)(?=$|[-_.])", re.IGNORECASE)
_STAGE_NUMBER = re.compile(r"(?:stage|phase)[-_]?0*(\d+)(?:[-_][a-z]+)*", re.IGNORECASE)
"""A name that holds the number of a stage and no other: `stage1`, `phase_2_anneal`."""
_SEED = re.compile(r"(?:.*[-_.])?seed[-_=]?(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class StagePlace:
    """A stage of a project folder."""

    name: str
    parent: str | None = None
    """The stage that it continues; None for an independent run."""
    train_seed: int | None = None


def is_lineage(names: Sequence[str]) -> bool:
    """Whether names are different stages of one pipeline, such as `base` and `sft`, or `stage1` and `stage2`."""
    numbers = [_STAGE_NUMBER.fullmatch(name) for name in names]
    ranks = [int(m[1]) for m in numbers if m] if all(numbers) else [_rank(name) for name in names]
    return len(names) > 1 and None not in ranks and len(set(ranks)) == len(ranks)


def order_stages(folder: Path, names: Sequence[str]) -> list[StagePlace]:
    """Stages in order, each with its parent: by the words for stages, by leading numbers, or seeds as independent runs.

    Raises:
        BadInput: the order is not clear; the error shows the lineage.toml that would tell it.
    """
    if len(names) == 1:
        return [StagePlace(names[0])]
    if all(seeds := [_SEED.fullmatch(name) for name in names]):
        return [StagePlace(name, train_seed=int(m[1])) for name, m in zip(names, seeds, strict=True) if m]
    for keys in ([_number(name) for name in names], [_rank(name) for name in names]):
        if None not in keys and len(set(keys)) == len(keys):
            ordered = [name for _, name in sorted(zip(keys, names, strict=True))]
            return [StagePlace(n, up) for n, up in zip(ordered, [None, *ordered[:-1]], strict=True)]
    raise unclear_order(folder, names)


def unclear_order(folder: Path, names: Sequence[str]) -> BadInput:
    """The error for runs whose order is unknown."""
    ranks = {name: rank for name in names if (rank := _rank(name)) is not None}
    names = sorted(names, key=lambda name: ranks.get(name, len(_STAGE_WORDS)))
    return BadInput(
        f"{folder} holds {len(names)} runs ({', '.join(names[:4])}{', …' if len(names) > 4 else ''}) whose order is not clear from their "
        "names: " + manifest.proposed(folder, names)
    )


def _rank(name: str) -> int | None:
    """Place of the only stage word in a name; None without one, or with words of several stages."""
    parts = set(
        re.split(r"[^a-z]+", name.lower().replace("mid-training", "midtraining").replace("pre-training", "pretraining"))
    )
    ranks = [rank for rank, words in enumerate(_STAGE_WORDS) if parts & set(words)]
    return ranks[0] if len(ranks) == 1 else None


def _number(name: str) -> int | None:
    """`01_pretrain` is 1, `stage2` is 2."""
    match = _NUMBERED.match(name)
    return int(match[1]) if match else None
