"""DataDecide: 25 corpora, 14 sizes, three seeds each in one repository; every seed is an independent run. Source: arXiv:2504.11393."""

import re

from ontogeny.suites import ROOT_STAGE, BranchLabel, Suite


def parse(branch: str) -> BranchLabel | None:
    match = re.fullmatch(r"step(\d+)-seed-(default|(?:small|large)-aux-(\d+))", branch)
    if match is None:
        return None
    if match[2] == "default":
        return BranchLabel(int(match[1]), train_seed=0)
    return BranchLabel(int(match[1]), stage=f"seed-{match[2]}", train_seed=int(match[3]))


suite = Suite(
    name="DataDecide",
    source="arXiv:2504.11393",
    matches=r"allenai/DataDecide-.*",
    parse=parse,
    repositories=("allenai/DataDecide-dolma1_7-1B", "allenai/DataDecide-c4-6M"),
    examples={
        "step69369-seed-default": BranchLabel(69_369, stage=ROOT_STAGE, train_seed=0),
        "step1250-seed-small-aux-2": BranchLabel(1250, stage="seed-small-aux-2", train_seed=2),
    },
    skip_main=True,
)
