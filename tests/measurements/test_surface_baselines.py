"""Surface baselines: each detects its own feature only; copies across the split are counted."""

import math
import random
import re
from dataclasses import replace

import pytest
import torch

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.measurements.surface_baselines import SurfaceAudit, audit_surface, surface_records
from ontogeny.statistics.splits import Split, contiguous_split, group_split

WORDS = "river stone lamp garden letter window bottle engine mirror pencil table cloud".split()  # noqa: SIM905


def concept(text_of, targets, *, kind="binary", classes=(), group_of=lambda i: f"g{i}") -> Concept:
    rng = random.Random(0)
    filler = [" ".join(rng.choices(WORDS, k=6)) for _ in targets]
    examples = (
        Example(text_of(t, words), t, group_of(i)) for i, (t, words) in enumerate(zip(targets, filler, strict=True))
    )
    return Concept("planted", tuple(examples), kind, classes)


def audited(made: Concept, **kwargs: object) -> SurfaceAudit:
    return audit_surface(made, group_split(made.group_ids(), made.labels(), made.kind, seed=0), **kwargs)


HALF = [bool(i % 2) for i in range(400)]


@pytest.mark.parametrize(
    ("text_of", "seen"),
    [
        (lambda t, w: f"{w} {'bad' if t else 'good'}", "tfidf"),
        (lambda t, w: f"{w} {'?' if t else '.'}", "tfidf"),
        (lambda t, w: f"{w} {'I' if t else 'a'}".lower(), "tfidf"),
        (lambda t, w: f"{'not ' if t else ''}very {'' if t else 'not '}{w}", "tfidf"),
        (lambda t, w: f"天{'是好' if t else '不好'}的 {w}", "tfidf"),
        (lambda t, w: f"{w}{'e' * 25 if t else ''}", "length"),
        (lambda t, w: w.title() if t else w, "casing"),
        (lambda t, w: w[:9] + w[9].upper() + w[10:] if t else w, "casing"),
    ],
)
def test_each_baseline_detects_its_own_feature(text_of, seen: str) -> None:
    found = audited(concept(text_of, HALF))
    assert found.baselines[seen].auroc > 0.95
    assert found.baselines[seen].accuracy > 0.9
    assert found.baselines[seen].main[1].low > 0.9
    assert any("surface form alone predicts it" in line for line in found.warnings)
    for other in {"length", "casing"} - {seen}:
        if seen == "casing" or other == "casing":
            assert abs(found.baselines[other].auroc - 0.5) < 0.1


def test_random_labels_raise_no_warning() -> None:
    found = audited(concept(lambda _, words: words, HALF))
    assert all(abs(found.baselines[name].auroc - 0.5) < 0.12 for name in ("tfidf", "length", "casing"))
    assert found.warnings == ()
    assert (found.duplicates, found.twins, found.shared_groups) == (0, 0, 0)
    assert found.baselines["tfidf"].main[1].low < 0.5 < found.baselines["tfidf"].main[1].high


def test_casing_does_not_encode_length() -> None:
    found = audited(concept(lambda t, w: f"The {w}{' and so on' if t else ''}", HALF))
    assert found.baselines["length"].auroc > 0.7
    assert found.baselines["casing"].auroc == 0.5


def test_counts_copies_on_both_sides() -> None:
    texts = [f"a text about {i} things" for i in range(40)]
    examples = [Example(text, i % 2 == 0, f"g{i}") for i, text in enumerate(texts)]
    examples += [
        Example(texts[0], True, "d0"),
        Example(texts[1], True, "d1"),
        Example("A text  about 2 THINGS", False, "t2"),
        Example("a new one", False, "g3"),
    ]
    made = Concept("copies", tuple(examples))
    found = audit_surface(made, Split(torch.arange(40), torch.arange(40, 44)))
    assert (found.duplicates, found.twins, found.shared_groups) == (2, 1, 1)
    told = "\n".join(found.warnings)
    assert "2 of 4 test texts also occur in train" in told
    assert "1 of 4 test texts differ from a train text only in case or white space" in told
    assert "2 of 4 test texts have a copy in train with another label" in told
    assert "1 groups are on both sides" in told
    assert "1 texts occur with two labels" in told


def test_warns_of_opposite_twins_across_split() -> None:
    """Each text twice, with both labels: words learned on one side are wrong on the other."""
    rng = random.Random(1)
    texts = [" ".join(rng.choices(WORDS, k=6)) for _ in range(200)]
    twins = [Example(text, i % 2 == side, f"g{i}") for side in (0, 1) for i, text in enumerate(texts)]
    found = audit_surface(Concept("twins", tuple(twins)), contiguous_split(400, test=0.5))
    assert found.baselines["tfidf"].auroc < 0.2
    assert any("far below chance" in line for line in found.warnings)


def test_classes_use_macro_auroc() -> None:
    words = ("red", "green", "blue")
    made = concept(lambda t, w: f"{w} {words[t]}", [i % 3 for i in range(300)], kind="classes", classes=words)
    found = audited(made)
    assert found.baselines["tfidf"].auroc > 0.95
    assert found.baselines["length"].auroc > 0.6
    assert abs(found.baselines["casing"].auroc - 0.5) < 0.05
    two = audited(
        concept(lambda t, w: f"{w} {words[t]}", [i % 2 for i in range(300)], kind="classes", classes=("a", "b"))
    )
    assert two.baselines["tfidf"].auroc > 0.95
    assert two.baselines["tfidf"].accuracy > 0.95


def test_class_missing_from_train_does_not_crash() -> None:
    made = concept(lambda t, w: f"{w} {t}", [0, 1] * 60 + [2] * 30, kind="classes", classes=("a", "b", "c"))
    found = audit_surface(made, contiguous_split(150))
    assert found.baselines["tfidf"].accuracy == 0.0


def test_numbers_use_r2() -> None:
    made = concept(lambda t, w: f"{w}{' and' * int(t)}", [float(i % 12) for i in range(300)], kind="number")
    found = audited(made)
    assert found.baselines["length"].main[0] == "r2"
    assert found.baselines["length"].main[1].value > 0.8
    assert abs(found.baselines["majority"].main[1].value) < 0.1
    assert math.isnan(found.baselines["length"].auroc)
    rows = surface_records(made, found)
    assert {(row.metric, row.method, row.control) for row in rows} == {
        ("r2", "ridge", f"surface_{name}") for name in ("tfidf", "length", "casing")
    }


def test_records_have_coordinates() -> None:
    made = concept(lambda t, w: f"{w} {'bad' if t else 'good'}", HALF)
    rows = surface_records(made, audited(made), lineage="run")
    assert len(rows) == 6
    for row in rows:
        assert (row.concept, row.lineage, row.method, row.split, row.site, row.step) == (
            "planted",
            "run",
            "logistic",
            "test",
            None,
            None,
        )
        assert row.control in {"surface_tfidf", "surface_length", "surface_casing"}
        assert row.low <= row.value <= row.high
        assert row.n == 120


def test_unmeasurable_baseline_is_nan_with_reason() -> None:
    made = concept(lambda t, w: w, HALF)
    positive = torch.tensor([i for i in range(400) if i % 2])
    found = audit_surface(made, Split(positive[:150], torch.arange(0, 40)))
    row = next(row for row in surface_records(made, found) if row.control == "surface_tfidf")
    assert math.isnan(row.value)
    assert (row.n, row.note) == (0, "the train side holds one class")


def test_one_class_in_test_has_accuracy_but_no_auroc() -> None:
    made = concept(lambda t, w: w, HALF)
    positive = torch.tensor([i for i in range(400) if i % 2])
    found = audit_surface(made, Split(torch.arange(200), positive[positive >= 200]))
    auroc, accuracy = surface_records(made, found)[:2]
    assert math.isnan(auroc.value)
    assert (auroc.n, auroc.note) == (0, "the test side holds one class")
    assert 0 <= accuracy.value <= 1
    assert accuracy.n == 100


def test_same_seed_gives_same_interval() -> None:
    made = concept(lambda t, w: f"{w} {'bad' if t and hash(w) % 3 else 'good'}", HALF)
    assert audited(made, seed=1) == audited(made, seed=1)


@pytest.mark.parametrize(
    ("name", "floor", "accuracy"),
    [
        ("confaide", "tfidf", 0.802),
        ("stereoset", "tfidf", 0.831),
        ("toxigen", "tfidf", 0.794),
        ("sst2", "casing", 0.996),
    ],
)
def test_baselines_on_the_tracing_papers_data(shared, name: str, floor: str, accuracy: float) -> None:
    """On its own split, contiguous 80/20; what stands here was measured on the whole files, of which these are subsets."""
    made = Concept.from_file(shared / "tracing_trustworthiness" / f"{name}.csv")
    found = audit_surface(made, contiguous_split(len(made.examples)))
    assert abs(found.baselines[floor].accuracy - accuracy) < 0.03
    assert any("surface form alone predicts it" in line for line in found.warnings)
    grouped = audited(made)
    assert (grouped.duplicates, grouped.twins, grouped.shared_groups) == (0, 0, 0)
    if name == "sst2":
        assert found.baselines["tfidf"].accuracy < 0.15
        assert found.twins > 400
        assert abs(grouped.baselines["tfidf"].auroc - 0.5) < 0.02


def test_texts_and_groups_that_another_program_spoiled_are_said() -> None:
    made = concept(
        lambda t, w: w + (" \ufffd" if t else ""), HALF, group_of=lambda i: f"{i // 2} {'Ann' if i % 2 else 'ann'}"
    )
    warnings = " ".join(audited(made).warnings)
    assert "200 texts hold U+FFFD" in warnings
    assert re.search(r"\d+ groups differ from another one only in case", warnings)
    paired = replace(made, examples=tuple(replace(e, pair=e.group) for e in concept(lambda t, w: w, HALF).examples))
    assert "400 of 400 pairs hold one label only" in " ".join(audited(paired).warnings)
    sound = " ".join(audited(concept(lambda t, w: w, HALF)).warnings)
    assert not any(word in sound for word in ("U+FFFD", "in case", "one label only"))
