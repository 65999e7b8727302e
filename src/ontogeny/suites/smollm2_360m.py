"""SmolLM2 360M: a branch each 160,000 steps, with a smaller batch than the other sizes. Source: arXiv:2502.02737 and its card."""

from ontogeny.suites import BranchLabel, Suite, numbered

suite = Suite(
    name="SmolLM2 360M",
    source="arXiv:2502.02737",
    matches=r"HuggingFaceTB/SmolLM2-360M-intermediate-checkpoints",
    parse=numbered(r"step-(\d+)", lambda step: BranchLabel(step, float(step * 1_572_864))),
    repositories=("HuggingFaceTB/SmolLM2-360M-intermediate-checkpoints",),
    examples={"step-160000": BranchLabel(160_000, 251_658_240_000.0)},
    skip_main=True,
)
