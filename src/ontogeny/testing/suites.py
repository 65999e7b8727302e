"""Contract of a suite: branch names are parsed, ordered and unique, and each repository belongs to one suite."""

import itertools
import re

from ontogeny import plugins, suites
from ontogeny.suites import BranchLabel, Suite
from ontogeny.testing._contract import Clause, run_clauses


def _suite(name: str) -> Suite:
    suite: Suite = plugins.load_plugin("suites", name).suite
    return suite


def parses_its_examples(name: str) -> None:
    suite = _suite(name)
    assert suite.examples
    assert suite.repositories
    for branch, label in suite.examples.items():
        assert suite.parse(branch) == label
        # What git allows in the name of a branch.
        assert re.fullmatch(r"[A-Za-z0-9][\w.-]*", branch)
        assert label.step is None or label.step >= 0
        assert label.tokens is None or label.tokens >= 0
    numbered = [(label.stage, label.train_seed, label.step) for label in suite.examples.values()]
    assert len(set(numbered)) == len(numbered)


def has_more_tokens_at_later_steps(name: str) -> None:
    by_stage: dict[str, list[BranchLabel]] = {}
    for label in _suite(name).examples.values():
        if label.step is not None and label.tokens is not None:
            by_stage.setdefault(label.stage, []).append(label)
    for labels in by_stage.values():
        labels.sort(key=lambda label: label.step or 0)
        assert all(a.tokens < b.tokens for a, b in itertools.pairwise(labels) if a.tokens and b.tokens)


def has_repositories_of_its_own(name: str) -> None:
    for repository in _suite(name).repositories:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", repository)
        assert [other for other in plugins.list_plugins("suites") if _suite(other).has(repository)] == [name]
        assert suites.find_suite(repository) == _suite(name)


def states_its_source_and_ignores_other_branches(name: str) -> None:
    suite = _suite(name)
    assert re.match(r"arXiv:\d{4}\.\d{4,5}|https://", suite.source)
    assert plugins.plugin_summary("suites", name)
    for branch in ("main", "", "refs/pr/1", "dev", "fix-step"):
        assert suite.parse(branch) is None


SUITE_CLAUSES: tuple[Clause, ...] = (
    parses_its_examples,
    has_more_tokens_at_later_steps,
    has_repositories_of_its_own,
    states_its_source_and_ignores_other_branches,
)


def check_suite(name: str) -> None:
    """Check a suite plug-in against its contract.

    Args:
        name: Name of a plug-in, of this package or of an installed one that has the entry point `ontogeny.suites`.

    Raises:
        AssertionError: a clause does not hold; a note says which.
        BadInput: there is no such suite.
    """
    run_clauses("suite", name, SUITE_CLAUSES, name)
