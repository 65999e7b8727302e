"""FineWeb ablations: one 1.8B model per data set, a branch every 1000 steps. Source: arXiv:2406.17557."""

import re

from ontogeny.suites import BranchLabel, Suite


def parse(branch: str) -> BranchLabel | None:
    match = re.fullmatch(r"step-(\d+)-(\d+)BT", branch)
    return BranchLabel(int(match[1]), float(match[2]) * 1e9) if match else None


suite = Suite(
    name="FineWeb ablations",
    source="arXiv:2406.17557",
    matches=r"HuggingFaceFW/ablation-model-.*",
    parse=parse,
    repositories=("HuggingFaceFW/ablation-model-fineweb-edu", "HuggingFaceFW/ablation-model-the-pile"),
    examples={"step-001000-2BT": BranchLabel(1000, 2e9)},
    skip_main=True,
)
