"""Model suites: how public training runs name their checkpoints; one file per suite, and general patterns for all others.

To add a suite, write one file in this folder with `suite: Suite`: the repositories that it covers, and a function that parses their
branch names. `tests/contracts/test_suites.py` checks it against its own examples.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from ontogeny import plugins

__all__ = [
    "GENERAL_SUITE",
    "ROOT_STAGE",
    "BranchLabel",
    "Suite",
    "find_suite",
    "no_seed",
    "numbered",
    "parse_branch",
    "whole_number",
]

ROOT_STAGE = ""
"""Placeholder in branch labels for the first stage, which the caller names (by default `pretrain`)."""


@dataclass(frozen=True)
class BranchLabel:
    """Step, tokens and stage of a checkpoint, from the name of its branch."""

    step: int | None
    """None for a model without a step; it is last in its stage."""
    tokens: float | None = None
    """Training tokens seen in this stage."""
    stage: str = ROOT_STAGE
    parent: str | None = None
    """The stage that it continues; None for an independent run."""
    train_seed: int | None = None


def no_seed(repository: str) -> None:
    """Default `train_seed`, for suites without a seed in the repository name."""
    return None


def numbered(pattern: str, label: Callable[[int], BranchLabel] = BranchLabel) -> Callable[[str], BranchLabel | None]:
    """Parser of branch names that match a pattern with one number, which `label` turns into a label."""

    def parse(branch: str) -> BranchLabel | None:
        match = re.fullmatch(pattern, branch)
        return label(int(match[1])) if match else None

    return parse


@dataclass(frozen=True)
class Suite:
    """A family of public runs with one naming scheme of branches."""

    name: str
    source: str
    """Paper or model card that describes the naming."""
    matches: str
    """Regular expression for the whole repository id, ignoring case."""
    parse: Callable[[str], BranchLabel | None]
    """Parses a branch name; None for a branch without a checkpoint."""
    repositories: tuple[str, ...] = ()
    """Examples of real repositories."""
    examples: Mapping[str, BranchLabel] = field(default_factory=dict)
    """Examples of real branch names with their labels."""
    main: BranchLabel | None = None
    """Label of the branch `main`, if documented."""
    skip_main: bool = False
    """Whether to ignore `main`, because it repeats the last checkpoint or holds no model."""
    train_seed: Callable[[str], int | None] = no_seed
    """Parses the seed in a repository name."""

    def has(self, repository: str) -> bool:
        """Whether a repository belongs to the suite."""
        return re.fullmatch(self.matches, repository, re.IGNORECASE) is not None


_STAGE = re.compile(
    r"(stage|(?:[A-Za-z]+[-_])?phase)[-_]?(\d+)(?:[-_]ingredient[-_]?(\d+))?[-_](?=\D*\d)", re.IGNORECASE
)
_STAGE_WORD = re.compile(
    r"(rlvr|rl|grpo|ppo|sft|dpo|kto|orpo|decay|cooldown|anneal(?:ing)?|midtrain(?:ing)?|long[-_]?context)[-_/]"
    r"(?=(?:global[-_]?)?(?:step|update|iter|checkpoint|ckpt|chkpt))",
    re.IGNORECASE,
)
"""A stage before the step: `rl_step_100`, `decay-step-3000`."""
_SEED = re.compile(r"[-_]seed[-_=]?(\d{1,9})$", re.IGNORECASE)
_WORDS_SEEN = re.compile(r"chck[-_](\d+)([MB])", re.IGNORECASE)
"""BabyLM counts words, not tokens: a step is a million words."""
_NUMBER = r"(\d+(?:,\d{3})*(?:\.\d+)?|\d+e\d{1,2})([kmb]?)(?![A-Za-z0-9,]|\.\d|_\d{3}(?!\d))"
"""A whole number with a unit, never a part of one: `1000`, `1,000`, `1.2M`, `1e6`; `10_000` could be two numbers and is not read."""
_STEP_WORDS = (r"global[-_]?steps?|steps?|updates?", r"iterations?|iters?", r"checkpoint|ckpt|chkpt", r"epochs?")
"""Where a name holds several numbers, the first of these words wins."""
_STEPS = tuple(re.compile(rf"(?:^|[-_/.,\s])(?:{word})[-_=\s]?{_NUMBER}", re.IGNORECASE) for word in _STEP_WORDS)
_TOKENS = re.compile(
    r"tokens?[-_=]?(\d+(?:\.\d+)?)([MBT])(?=$|[-_/.])|(?:^|[-_/])(\d+(?:\.\d+)?)([MBT])(?:T|[-_]?tokens?)(?=$|[-_/.])|"
    r"^(?:train[-_]|\w*(?:ckpt|checkpoint)s?/)?(\d+(?:\.\d+)?)([MBT])$",
    re.IGNORECASE,
)
_SCALE = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def whole_number(digits: str, unit: str = "") -> int | None:
    """The number with its unit (`1.2`, `M` is 1,200,000); None if it is not whole."""
    value = Fraction(digits.replace(",", "")) * _SCALE[unit.upper()]
    # `1.000` may be one or a thousand.
    return int(value) if value.denominator == 1 and (unit or "." not in digits) else None


def parse_branch(branch: str) -> BranchLabel | None:
    """Step, tokens, stage and seed of names like `step1000`, `checkpoint-500`, `iter_7`, `stage2-step10-tokens5B`, `rl_step_100`,
    `step1000-seed2`, `100B`, `128000`."""
    if re.fullmatch(r"\d+", branch):
        return BranchLabel(int(branch))
    if words := _WORDS_SEEN.fullmatch(branch):
        return BranchLabel((whole_number(words[1], words[2]) or 0) // 10**6)
    if (seed := _SEED.search(branch)) and (label := parse_branch(branch[: seed.start()])) is not None:
        # Each seed is a run of its own.
        stage = f"{label.stage}-seed{int(seed[1])}" if label.stage else f"seed{int(seed[1])}"
        return replace(label, stage=stage, parent=None, train_seed=int(seed[1]))
    stage, parent, text = _stage(branch)
    step, tokens = _step(text), _tokens(text)
    if step is None and tokens is None:
        return None
    if step is None:
        # Some runs count tokens only: millions of tokens are steps, and a part of a million is none.
        millions, rest = divmod(round(tokens or 0), 10**6)
        return None if rest else BranchLabel(millions, tokens, stage, parent)
    return BranchLabel(step, tokens, stage, parent)


def _step(text: str) -> int | None:
    """The step in a branch name."""
    match = next((match for pattern in _STEPS if (match := pattern.search(text))), None)
    return whole_number(match[1], match[2]) if match else None


def _tokens(text: str) -> float | None:
    """Number of tokens in a branch name; `7b` inside a longer name may be the size of the model and does not count."""
    match = _TOKENS.search(text)
    if match is None:
        return None
    number, unit = next((n, u) for n, u in zip(match.groups()[::2], match.groups()[1::2], strict=True) if n)
    return float(Fraction(number) * _SCALE[unit.upper()])


def _stage(branch: str) -> tuple[str, str | None, str]:
    """Stage, its parent, and the rest of the name; ingredients of a stage are siblings."""
    if word := _STAGE_WORD.match(branch):
        return word[1].lower(), ROOT_STAGE, branch[word.end() :]
    match = _STAGE.match(branch)
    if match is None:
        return ROOT_STAGE, None, branch
    kind, number, ingredient = re.split("[-_]", match[1].lower())[-1], int(match[2]), match[3]
    rest = branch[match.end() :]
    if number <= 1:
        return ROOT_STAGE, None, rest
    name = f"{kind}{number}" + (f"-ingredient{ingredient}" if ingredient else "")
    return name, ROOT_STAGE if number == 2 else f"{kind}{number - 1}", rest


GENERAL_SUITE = Suite(name="general", source="common ways to name branches", matches=".*", parse=parse_branch)


def find_suite(repository: str) -> Suite:
    """The suite of a repository; `GENERAL_SUITE` if none matches."""
    for name in plugins.list_plugins("suites"):
        suite: Suite = plugins.load_plugin("suites", name).suite
        if suite.has(repository):
            return suite
    return GENERAL_SUITE
