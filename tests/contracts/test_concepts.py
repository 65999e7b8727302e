"""The contract of `ontogeny.concepts`, for all plug-ins in the folder and for plug-ins that violate it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from ontogeny import plugins
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.measurements.surface_baselines import audit_surface, surface_records
from ontogeny.statistics.splits import group_split

Plugin = Callable[[int], Concept]


def broken(build: Plugin) -> list[str]:
    """Clauses of the contract that a plug-in violates."""
    made = build(0)
    split = group_split(made.group_ids(), made.labels(), made.kind, seed=0)
    groups = made.group_ids()
    found = audit_surface(made, split, samples=100)
    floors = {row.control for row in surface_records(made, found)}
    kept = {
        "is deterministic": made.hash == build(0).hash,
        "has every class": made.kind == "number" or set(made.labels().tolist()) >= set(range(len(made.classes) or 2)),
        "has no group on both sides": not set(groups[split.train].tolist()) & set(groups[split.test].tolist()),
        "has no copy of a text on both sides": (found.duplicates, found.twins) == (0, 0),
        "states its licence": bool(made.licence),
        "states its source": bool(made.source),
        "states its question": bool(made.question),
        "has its surface floors": floors == {"surface_tfidf", "surface_length", "surface_casing"},
        "asks answers that differ": all(
            answer.right != answer.wrong and answer.prompt.strip() for answer in made.answers
        ),
    }
    return [promise for promise, is_kept in kept.items() if not is_kept]


@pytest.mark.parametrize("name", plugins.list_plugins("concepts"))
def test_plugin_satisfies_the_contract(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = plugins.load_plugin("concepts", name)
    if getattr(module, "SOURCES", ()):
        monkeypatch.setenv("ONTOGENY_DATA", str(request.getfixturevalue("shared")))
    assert broken(module.concept) == []
    made = module.concept()
    assert (made.name, made.hash) == (name, module.concept(seed=0).hash)
    assert plugins.plugin_summary("concepts", name)


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
    assert broken(plugin) == promises


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
