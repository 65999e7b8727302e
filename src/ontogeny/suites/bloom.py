"""BLOOM: intermediate checkpoints as git tags. Source: arXiv:2211.05100 and the cards of bigscience/bloom-*-intermediate."""

import re

from ontogeny.suites import BranchLabel, Suite


def parse(branch: str) -> BranchLabel | None:
    match = re.fullmatch(r"global_step(\d+)", branch)
    return BranchLabel(int(match[1])) if match else None


suite = Suite(
    name="BLOOM",
    source="arXiv:2211.05100",
    matches=r"bigscience/bloom-([\w.]+-)?intermediate",
    parse=parse,
    repositories=("bigscience/bloom-intermediate", "bigscience/bloom-1b1-intermediate"),
    examples={"global_step1000": BranchLabel(1000), "global_step600000": BranchLabel(600_000)},
    skip_main=True,
)
