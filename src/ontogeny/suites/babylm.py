"""BabyLM baselines: a branch after each number of words seen, `chck_10M`; the step is that number in millions. Source: babylm.github.io."""

from ontogeny.suites import BranchLabel, Suite, parse_branch

suite = Suite(
    name="BabyLM",
    source="https://babylm.github.io",
    matches=r"BabyLM-community/.*",
    parse=parse_branch,
    repositories=("BabyLM-community/babylm-baseline-10m-gpt2", "BabyLM-community/BabyLM-2026-Baseline-GPT2-Strict"),
    examples={"chck_1M": BranchLabel(1), "chck_10M": BranchLabel(10), "chck_1000M": BranchLabel(1000)},
)
