"""Every suite in the folder meets the contract in `ontogeny.testing`; general patterns read other repositories."""

import pytest

from ontogeny import plugins, suites
from ontogeny.suites import GENERAL_SUITE, ROOT_STAGE, BranchLabel, parse_branch
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


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("chck_10M", BranchLabel(10)),
        ("hf_ckpt/16.78B", BranchLabel(16_780, 16.78e9)),
        ("rl_step_100", BranchLabel(100, None, "rl", ROOT_STAGE)),
        ("decay-step-3000", BranchLabel(3000, None, "decay", ROOT_STAGE)),
        ("step1000-seed2", BranchLabel(1000, stage="seed2", train_seed=2)),
        ("stage2-step10-seed3", BranchLabel(10, None, "stage2-seed3", train_seed=3)),
        ("phase1_checkpoint_055500", BranchLabel(55_500)),
        ("CrystalCoder_phase2_checkpoint_100", BranchLabel(100, None, "phase2", ROOT_STAGE)),
        ("epoch_3_step_10000", BranchLabel(10_000)),
        ("step_0025", BranchLabel(25)),
        ("kestrel", None),
        ("model-7B", None),
        ("seed2", None),
    ],
)
def test_general_names_tell_step_tokens_stage_and_seed(name: str, label: BranchLabel | None) -> None:
    assert parse_branch(name) == label
