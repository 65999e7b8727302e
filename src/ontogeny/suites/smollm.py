"""SmolLM3: three pre-training stages with a common step count, two long-context stages, then post-training. Source: its model card,
huggingface.co/HuggingFaceTB/SmolLM3-3B-checkpoints."""

import re

from ontogeny.suites import ROOT_STAGE, BranchLabel, Suite

_TOKENS_PER_STEP = 2_359_296
_PARENTS = {"stage2": ROOT_STAGE, "stage3": "stage2", "lc-4k-to-32k": "stage3", "lc-32k-to-64k": "lc-4k-to-32k"}
_POST_TRAINING = {
    "it-mid-training": "lc-32k-to-64k",
    "it-SFT": "it-mid-training",
    "it-LC-expert": "it-SFT",
    "it-soup-APO": "it-SFT",
}


def parse(branch: str) -> BranchLabel | None:
    if branch in _POST_TRAINING:
        return BranchLabel(None, stage=branch, parent=_POST_TRAINING[branch])
    match = re.fullmatch(r"(stage[123]|lc-4k-to-32k|lc-32k-to-64k)-step-(\d+)", branch)
    if match is None:
        return None
    stage, step = match[1], int(match[2])
    if stage == "stage1":
        return BranchLabel(step, float(step * _TOKENS_PER_STEP))
    # Steps continue over the three pre-training stages and restart in each long-context stage.
    return BranchLabel(step, float(step * _TOKENS_PER_STEP), stage, _PARENTS[stage])


suite = Suite(
    name="SmolLM3",
    source="https://huggingface.co/HuggingFaceTB/SmolLM3-3B-checkpoints",
    matches=r"HuggingFaceTB/SmolLM3-3B-checkpoints",
    parse=parse,
    repositories=("HuggingFaceTB/SmolLM3-3B-checkpoints",),
    examples={
        "stage1-step-40000": BranchLabel(40_000, 94_371_840_000.0),
        "stage2-step-3520000": BranchLabel(3_520_000, 8_304_721_920_000.0, "stage2", ROOT_STAGE),
        "it-SFT": BranchLabel(None, stage="it-SFT", parent="it-mid-training"),
    },
    skip_main=True,
)
