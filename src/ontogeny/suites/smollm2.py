"""SmolLM2: intermediate checkpoints of three sizes, with the global batch size of each. Source: arXiv:2502.02737 and the cards of
HuggingFaceTB/SmolLM2-*-intermediate-checkpoints."""

from ontogeny.suites import BranchLabel, Suite, numbered

suite = Suite(
    name="SmolLM2",
    source="arXiv:2502.02737",
    matches=r"HuggingFaceTB/SmolLM2-(135M|1\.7B)-intermediate-checkpoints",
    parse=numbered(r"step-(\d+)", lambda step: BranchLabel(step, float(step * 2_097_152))),
    repositories=(
        "HuggingFaceTB/SmolLM2-135M-intermediate-checkpoints",
        "HuggingFaceTB/SmolLM2-1.7B-intermediate-checkpoints",
    ),
    examples={
        "step-125000": BranchLabel(125_000, 262_144_000_000.0),
        "step-250000": BranchLabel(250_000, 524_288_000_000.0),
    },
    skip_main=True,
)
