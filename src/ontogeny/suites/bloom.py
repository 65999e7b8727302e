"""BLOOM: intermediate checkpoints as git tags. Source: arXiv:2211.05100 and the cards of bigscience/bloom-*-intermediate."""

from ontogeny.suites import BranchLabel, Suite, numbered

suite = Suite(
    name="BLOOM",
    source="arXiv:2211.05100",
    matches=r"bigscience/bloom-([\w.]+-)?intermediate",
    parse=numbered(r"global_step(\d+)"),
    repositories=("bigscience/bloom-intermediate", "bigscience/bloom-1b1-intermediate"),
    examples={"global_step1000": BranchLabel(1000), "global_step600000": BranchLabel(600_000)},
    skip_main=True,
)
