"""Stanford CRFM's GPT-2: five seeds of the small and of the medium model, about 600 checkpoints each. Source:
github.com/stanford-crfm/mistral."""

import re

from ontogeny.suites import BranchLabel, Suite, numbered

_TOKENS_PER_STEP = 512 * 1024


def train_seed(repository: str) -> int | None:
    match = re.search(r"-x(\d+)$", repository)
    return int(match[1]) if match else None


suite = Suite(
    name="Mistral GPT-2",
    source="https://github.com/stanford-crfm/mistral",
    matches=r"stanford-crfm/\w+-gpt2-(small|medium)-x\d+",
    parse=numbered(r"checkpoint-(\d+)", lambda step: BranchLabel(step, float(step * _TOKENS_PER_STEP))),
    repositories=("stanford-crfm/alias-gpt2-small-x21", "stanford-crfm/expanse-gpt2-small-x777"),
    examples={"checkpoint-400000": BranchLabel(400_000, 209_715_200_000.0)},
    skip_main=True,
    train_seed=train_seed,
)
