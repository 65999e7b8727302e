"""Every suite: branch names are parsed, ordered and unique, and each repository belongs to one suite."""

import itertools
import re

import pytest

from ontogeny import plugins, suites
from ontogeny.suites import GENERAL_SUITE, BranchLabel, Suite

SUITES = plugins.list_plugins("suites")


def suite(name: str) -> Suite:
    return plugins.load_plugin("suites", name).suite


@pytest.mark.parametrize("name", SUITES)
def test_examples_are_parsed(name: str) -> None:
    one = suite(name)
    assert one.examples
    assert one.repositories
    for branch, mark in one.examples.items():
        assert one.parse(branch) == mark
        # What git allows in the name of a branch.
        assert re.fullmatch(r"[A-Za-z0-9][\w.-]*", branch)
        assert mark.step is None or mark.step >= 0
        assert mark.tokens is None or mark.tokens >= 0
    numbered = [(mark.stage, mark.train_seed, mark.step) for mark in one.examples.values()]
    assert len(set(numbered)) == len(numbered)


@pytest.mark.parametrize("name", SUITES)
def test_steps_and_tokens_grow_together(name: str) -> None:
    by_stage: dict[str, list[BranchLabel]] = {}
    for mark in suite(name).examples.values():
        if mark.step is not None and mark.tokens is not None:
            by_stage.setdefault(mark.stage, []).append(mark)
    for marks in by_stage.values():
        marks.sort(key=lambda mark: mark.step or 0)
        assert all(a.tokens < b.tokens for a, b in itertools.pairwise(marks) if a.tokens and b.tokens)


@pytest.mark.parametrize("name", SUITES)
def test_each_repository_belongs_to_one_suite(name: str) -> None:
    for repository in suite(name).repositories:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", repository)
        assert [other for other in SUITES if suite(other).has(repository)] == [name]
        assert suites.find_suite(repository) == suite(name)


@pytest.mark.parametrize("name", SUITES)
def test_states_its_source_and_ignores_other_branches(name: str) -> None:
    one = suite(name)
    assert re.match(r"arXiv:\d{4}\.\d{4,5}|https://", one.source)
    assert plugins.plugin_summary("suites", name)
    for branch in ("main", "", "refs/pr/1", "dev", "fix-step"):
        assert one.parse(branch) is None


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
    pythia = suite("pythia")
    assert pythia.train_seed("EleutherAI/pythia-160m-seed3") == 3
    assert pythia.train_seed("EleutherAI/pythia-160m") == 0
    assert suite("mistral_gpt2").train_seed("stanford-crfm/expanse-gpt2-small-x777") == 777
