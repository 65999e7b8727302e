"""Pythia and PolyPythias: 154 steps from random weights to 300 B tokens. Sources: arXiv:2304.01373, arXiv:2503.09543."""

import re

from ontogeny.suites import BranchLabel, Suite, numbered

_TOKENS_PER_STEP = 2_097_152


def train_seed(repository: str) -> int | None:
    """`pythia-160m-seed3` is 3; the original run is 0, as in PolyPythias."""
    match = re.search(r"-seed(\d+)$", repository)
    return int(match[1]) if match else 0


suite = Suite(
    name="Pythia",
    source="arXiv:2304.01373",
    matches=r"EleutherAI/pythia-[\d.]+[mb](-deduped)?(-v0)?(-(data-|weight-)?seed\d+)?",
    parse=numbered(r"step(\d+)", lambda step: BranchLabel(step, float(step * _TOKENS_PER_STEP))),
    repositories=("EleutherAI/pythia-14m", "EleutherAI/pythia-2.8b-deduped", "EleutherAI/pythia-160m-seed3"),
    examples={
        "step0": BranchLabel(0, 0.0),
        "step512": BranchLabel(512, 1_073_741_824.0),
        "step1000": BranchLabel(1000, 2_097_152_000.0),
        "step143000": BranchLabel(143_000, 299_892_736_000.0),
    },
    skip_main=True,
    train_seed=train_seed,
)
