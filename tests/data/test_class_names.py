"""Classes that are slips of another class are named in the run; classes that are words of their own are not."""

from pathlib import Path

import pytest

from ontogeny.data.class_names import misspelt_classes
from ontogeny.data.concept import Concept
from ontogeny.measurements.surface_baselines import audit_surface
from ontogeny.statistics.splits import group_split


def concept(labels: dict[str, int], tmp_path: Path) -> Concept:
    names = [label for label, count in labels.items() for _ in range(count)]
    rows = [f"the text number {i} of them,{label},g{i}" for i, label in enumerate(names)]
    path = tmp_path / "c.csv"
    path.write_text("\n".join(["text,label,group", *rows]))
    return Concept.from_file(path)


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("postive", "positive"),  # left out
        ("positivve", "positive"),  # twice
        ("pistive", "positive"),  # two in a long word
        ("psoitive", "positive"),  # swapped
        ("positivs", "positive"),  # the next key
        ("nuetral", "neutral"),
        ("Neutrall", "neutral"),
    ],
)
def test_a_rare_class_of_one_slip_is_named(slip: str, meant: str, tmp_path: Path) -> None:
    (warning,) = misspelt_classes(concept({"positive": 30, "neutral": 30, slip: 3}, tmp_path))
    assert f"{slip!r} (3 of 63 examples) is spelt nearly as {meant!r} (30)" in warning


@pytest.mark.parametrize(
    "labels",
    [
        {"positive": 30, "negative": 30, "postive": 20},  # as frequent as a class
        {"moral": 30, "amoral": 3, "other": 30},
        {"class10": 30, "class11": 3, "class20": 30},
        {"cat": 30, "car": 3, "dog": 30},
        {"positive": 30, "negative": 30, "neutral": 3},
        {"typical": 30, "atypical": 3, "none": 9},
    ],
)
def test_words_of_their_own_are_no_slips(labels: dict[str, int], tmp_path: Path) -> None:
    assert misspelt_classes(concept(labels, tmp_path)) == []


def test_the_run_holds_the_warning(tmp_path: Path) -> None:
    misspelt = concept({"positive": 30, "negative": 30, "postive": 3}, tmp_path)
    split = group_split(misspelt.group_ids(), misspelt.labels(), kind="classes")
    audit = audit_surface(misspelt, split, samples=20)
    assert misspelt_classes(misspelt)[0] in audit.warnings
