"""Contract of a concept: deterministic, every class, no leak across the split, licence, source, question, surface floors."""

from collections.abc import Callable

from ontogeny import plugins
from ontogeny.data.concept import Concept
from ontogeny.measurements.surface_baselines import audit_surface, surface_records
from ontogeny.statistics.splits import group_split


def broken_concept_clauses(build: Callable[[int], Concept]) -> list[str]:
    """Clauses of the contract that a concept violates.

    Args:
        build: Makes the concept from a seed, as the function `concept` of a plug-in.
    """
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


def check_concept(name: str) -> None:
    """Check a concept plug-in against its contract.

    Args:
        name: Name of a plug-in, of this package or of an installed one that has the entry point `ontogeny.concepts`.

    Raises:
        AssertionError: the clauses that do not hold.
        BadInput: there is no such concept, or its examples are none.
    """
    module = plugins.load_plugin("concepts", name)
    broken = broken_concept_clauses(module.concept)
    made = module.concept()
    broken += [] if (made.name, made.hash) == (name, module.concept(seed=0).hash) else ["has the name of its file"]
    broken += [] if plugins.plugin_summary("concepts", name) else ["has a docstring"]
    assert not broken, f"the concept {name} breaks its contract: these must hold: {', '.join(broken)}"
