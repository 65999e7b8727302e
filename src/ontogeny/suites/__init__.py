"""Public training runs: how each suite names its checkpoints; one file a suite, plus the general patterns for all others.

A suite says which repositories it means and what a branch name of them says. A repository of no suite is read with `GENERAL`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ontogeny import plugins

ROOT_STAGE = ""
"""The stage that the caller names (`pretrain` unless told otherwise), seen from a mark."""


@dataclass(frozen=True)
class BranchLabel:
    """What the name of a branch says about its checkpoint."""

    step: int | None
    """None: a model without a place among the numbered ones; it stands last in its stage."""
    tokens: float | None = None
    """Training tokens seen in this stage."""
    stage: str = ROOT_STAGE
    parent: str | None = None
    """The stage this one continues; None for a run of its own."""
    train_seed: int | None = None


def no_seed(repository: str) -> None:
    """For suites whose repositories do not carry a seed in their name."""
    return None


@dataclass(frozen=True)
class Suite:
    """A family of public runs that name their branches alike."""

    name: str
    source: str
    """Where the naming is written down: paper or model card."""
    matches: str
    """Regular expression for the whole repository id, case ignored."""
    parse: Callable[[str], BranchLabel | None]
    """What a branch name says; None for a branch that is no checkpoint."""
    repositories: tuple[str, ...] = ()
    """Some real repositories of the suite."""
    examples: Mapping[str, BranchLabel] = field(default_factory=dict)
    """Some real branch names and what they say."""
    main: BranchLabel | None = None
    """What the branch `main` is, where the suite says so."""
    skip_main: bool = False
    """The branch `main` is the last numbered checkpoint once more, or no model, and is left out."""
    train_seed: Callable[[str], int | None] = no_seed
    """The seed in the name of a repository."""

    def has(self, repository: str) -> bool:
        return re.fullmatch(self.matches, repository, re.IGNORECASE) is not None


_STAGE = re.compile(r"stage[-_]?(\d+)(?:[-_]ingredient[-_]?(\d+))?[-_](?=\D*\d)", re.IGNORECASE)
_STEP = re.compile(
    r"(?:^|[-_/.])(?:global[-_]?steps?|steps?|checkpoint|ckpt|iteration|iter|epoch)[-_=]?(\d+)(k?)(?=$|[-_/.])",
    re.IGNORECASE,
)
_TOKENS = re.compile(
    r"tokens?[-_=]?(\d+(?:\.\d+)?)([MBT])(?=$|[-_/.])|(?:^|[-_/])(\d+(?:\.\d+)?)([MBT])(?:T|[-_]?tokens?)(?=$|[-_/.])|^(?:train[-_])?(\d+)([MBT])$",
    re.IGNORECASE,
)
_SCALE = {"M": 1e6, "B": 1e9, "T": 1e12}


def parse_branch(branch: str) -> BranchLabel | None:
    """Step, tokens and stage of names like `step1000`, `checkpoint-500`, `iter_7`, `stage2-step10-tokens5B`, `100B`, `128000`."""
    if re.fullmatch(r"\d+", branch):
        return BranchLabel(int(branch))
    stage, parent, rest = _stage(branch)
    step, seen = _STEP.search(rest), _tokens(rest)
    if step is None and seen is None:
        return None
    if step is None:
        # Some runs count in tokens only; millions of tokens then stand in for steps, so that the order is kept.
        return BranchLabel(round((seen or 0) / 1e6), seen, stage, parent)
    return BranchLabel(int(step[1]) * (1000 if step[2] else 1), seen, stage, parent)


def _tokens(text: str) -> float | None:
    """Tokens where the name says that they are: `7b` alone may be the size of the model, but for a name that is no more."""
    match = _TOKENS.search(text)
    if match is None:
        return None
    number, unit = next((n, u) for n, u in zip(match.groups()[::2], match.groups()[1::2], strict=True) if n)
    return float(number) * _SCALE[unit.upper()]


def _stage(branch: str) -> tuple[str, str | None, str]:
    """Stage, the one before it, and the rest of the name; ingredients of one stage are siblings."""
    match = _STAGE.match(branch)
    if match is None:
        return ROOT_STAGE, None, branch
    number, ingredient = int(match[1]), match[2]
    rest = branch[match.end() :]
    if number <= 1:
        return ROOT_STAGE, None, rest
    name = f"stage{number}" + (f"-ingredient{ingredient}" if ingredient else "")
    return name, ROOT_STAGE if number == 2 else f"stage{number - 1}", rest


GENERAL_SUITE = Suite(name="general", source="common ways to name branches", matches=".*", parse=parse_branch)


def find_suite(repository: str) -> Suite:
    """The suite of a repository; `GENERAL` where none claims it."""
    for name in plugins.list_plugins("suites"):
        suite: Suite = plugins.load_plugin("suites", name).suite
        if suite.has(repository):
            return suite
    return GENERAL_SUITE
