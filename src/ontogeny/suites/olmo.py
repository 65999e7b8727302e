"""OLMo 1, 2 and 3: steps and tokens in the name; since OLMo 2 stages with parallel ingredients. Sources: arXiv:2402.00838,
arXiv:2501.00656.

The ingredients of stage 2 are siblings: all continue stage 1 and are averaged into `main`.
"""

from ontogeny.suites import ROOT_STAGE, BranchLabel, Suite, parse_branch

suite = Suite(
    name="OLMo",
    source="arXiv:2501.00656",
    matches=r"allenai/OLMo-.*",
    parse=parse_branch,
    repositories=("allenai/OLMo-1B-hf", "allenai/OLMo-2-0425-1B", "allenai/OLMo-2-1124-7B"),
    examples={
        "step1000-tokens4B": BranchLabel(1000, 4e9),
        "stage1-step300-tokens1B": BranchLabel(300, 1e9),
        "stage1-step1907359-tokens4001B": BranchLabel(1_907_359, 4.001e12),
        "stage2-ingredient1-step11931-tokens50B": BranchLabel(11_931, 5e10, "stage2-ingredient1", ROOT_STAGE),
        "stage2-ingredient3-step23852-tokens51B": BranchLabel(23_852, 5.1e10, "stage2-ingredient3", ROOT_STAGE),
        "stage1-step337000": BranchLabel(337_000),
    },
)
