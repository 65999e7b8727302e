"""Every suite in the folder meets the contract in `ontogeny.testing`; general patterns read other repositories."""

import pytest

from ontogeny import plugins, suites
from ontogeny.suites import GENERAL_SUITE, BranchLabel
from ontogeny.testing import SUITE_CLAUSES


@pytest.mark.parametrize("clause", SUITE_CLAUSES, ids=lambda clause: clause.__name__)
@pytest.mark.parametrize("name", plugins.list_plugins("suites"))
def test_suite_meets_the_contract(name: str, clause: object) -> None:
    assert callable(clause)
    clause(name)


def test_unknown_repositories_use_general_patterns() -> None:
    assert suites.find_suite("somebody/something") is GENERAL_SUITE
    said = {
        "step1000": BranchLabel(1000),
        "checkpoint-500": BranchLabel(500),
        "iter_0000100": BranchLabel(100),
        "global_step10": BranchLabel(10),
        "step-50K": BranchLabel(50_000),
        "128000": BranchLabel(128_000),
        "step500-tokens1.5T": BranchLabel(500, 1.5e12),
        "100B": BranchLabel(100_000, 1e11),
        "stage1-step5": BranchLabel(5),
        "stage2-step10-tokens5B": BranchLabel(10, 5e9, "stage2", ""),
        "stage3-step10": BranchLabel(10, None, "stage3", "stage2"),
    }
    assert {branch: GENERAL_SUITE.parse(branch) for branch in said} == said


@pytest.mark.parametrize("branch", ["main", "llama-7b", "pythia-160m-500", "v1.0", "sft", "step", "fp16"])
def test_general_patterns_do_not_guess(branch: str) -> None:
    assert GENERAL_SUITE.parse(branch) is None


def test_seeds_in_names() -> None:
    pythia, mistral = (plugins.load_plugin("suites", name).suite for name in ("pythia", "mistral_gpt2"))
    assert pythia.train_seed("EleutherAI/pythia-160m-seed3") == 3
    assert pythia.train_seed("EleutherAI/pythia-160m") == 0
    assert mistral.train_seed("stanford-crfm/expanse-gpt2-small-x777") == 777
