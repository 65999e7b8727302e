"""The contract of `ontogeny.concepts`, for all plug-ins in the folder and for plug-ins that violate it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from ontogeny import plugins
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.measurements.surface_baselines import audit_surface
from ontogeny.statistics.splits import group_split
from ontogeny.testing import check_concept
from ontogeny.testing.concepts import broken_concept_clauses

Plugin = Callable[[int], Concept]


@pytest.mark.parametrize("name", plugins.list_plugins("concepts"))
def test_plugin_satisfies_the_contract(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = plugins.load_plugin("concepts", name)
    if getattr(module, "SOURCES", ()):
        monkeypatch.setenv("ONTOGENY_DATA", str(request.getfixturevalue("shared")))
    check_concept(name)


def good(seed: int = 0) -> Concept:
    examples = tuple(
        Example(f"the number {i} is {'even' if i % 2 == 0 else 'odd'}", i % 2 == 0, f"g{i}") for i in range(40)
    )
    return Concept("even", examples, licence="MIT", source="generated", question="Is it even?")


class Drifting:
    calls = 0

    def __call__(self, seed: int = 0) -> Concept:
        self.calls += 1
        made = good(seed)
        return replace(made, examples=(replace(made.examples[0], text=f"call {self.calls}"), *made.examples[1:]))


def copies(seed: int = 0) -> Concept:
    made = good(seed)
    return replace(
        made,
        examples=made.examples
        + tuple(replace(e, text=e.text.upper(), group=f"other {e.group}") for e in made.examples),
    )


def lacking(seed: int = 0) -> Concept:
    made = good(seed)
    examples = tuple(replace(example, target=int(example.target)) for example in made.examples)
    return replace(made, kind="classes", classes=("odd", "even", "neither"), examples=examples)


@pytest.mark.parametrize(
    ("plugin", "promises"),
    [
        (good, []),
        (Drifting(), ["is deterministic"]),
        (copies, ["has no copy of a text on both sides"]),
        (lambda seed=0: replace(good(), licence=None), ["states its licence"]),
        (lambda seed=0: replace(good(), source=None, question=None), ["states its source", "states its question"]),
        (lacking, ["has every class"]),
    ],
)
def test_contract_detects_violations(plugin: Plugin, promises: list[str]) -> None:
    assert broken_concept_clauses(plugin) == promises


def test_words_do_not_predict_subject_number() -> None:
    """Neither words nor the noun before the verb predict the label, and answers agree with it."""
    made = plugins.load_plugin("concepts", "subject_number").concept()
    split = group_split(made.group_ids(), made.labels(), made.kind, seed=0)
    found = audit_surface(made, split)
    assert found.baselines["tfidf"].auroc <= 0.55
    assert found.warnings == ()
    last_is_plural = [text.endswith("s") for text in made.texts]
    assert sum(a == b for a, b in zip(last_is_plural, made.labels().tolist(), strict=True)) == len(made.texts) / 2
    assert all(
        (answer.right == " are") == example.target for answer, example in zip(made.answers, made.examples, strict=True)
    )
    assert all(example.text[slice(*example.span)].endswith("s") == example.target for example in made.examples)
