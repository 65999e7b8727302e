"""DataDecide: 25 corpora, 14 sizes, three seeds each in one repository; every seed is a run of its own. Source: arXiv:2504.11393."""

import re

from ontogeny.lineages import ROOT, Mark, Suite


def parse(branch: str) -> Mark | None:
    match = re.fullmatch(r"step(\d+)-seed-(default|(?:small|large)-aux-(\d+))", branch)
    if match is None:
        return None
    if match[2] == "default":
        return Mark(int(match[1]), train_seed=0)
    return Mark(int(match[1]), stage=f"seed-{match[2]}", train_seed=int(match[3]))


suite = Suite(
    name="DataDecide",
    source="arXiv:2504.11393",
    matches=r"allenai/DataDecide-.*",
    parse=parse,
    repositories=("allenai/DataDecide-dolma1_7-1B", "allenai/DataDecide-c4-6M"),
    examples={
        "step69369-seed-default": Mark(69_369, stage=ROOT, train_seed=0),
        "step1250-seed-small-aux-2": Mark(1250, stage="seed-small-aux-2", train_seed=2),
    },
    skip_main=True,
)
