"""Concepts: typed targets, groups, limits, the hash, and errors."""

from dataclasses import replace

import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.data.grouping import derive_groups
from ontogeny.data.positions import Position
from ontogeny.errors import BadInput, SingleClassError


def example(i: int, target: object = None, **kwargs: object) -> Example:
    return Example(
        f"text number {i}", bool(i % 2) if target is None else target, kwargs.pop("group", f"g{i // 2}"), **kwargs
    )  # type: ignore[arg-type]


def binary(n: int = 40, **kwargs: object) -> Concept:
    return Concept("some", tuple(example(i) for i in range(n)), **kwargs)  # type: ignore[arg-type]


def test_label_dtype_depends_on_the_kind() -> None:
    assert binary().labels().dtype == torch.bool
    classes = Concept("c", tuple(example(i, i % 3) for i in range(30)), "classes", ("a", "b", "c"))
    assert classes.labels().dtype == torch.int64
    assert classes.labels()[:4].tolist() == [0, 1, 2, 0]
    number = Concept("n", tuple(example(i, i / 7) for i in range(30)), "number")
    assert number.labels().dtype == torch.float32


def test_groups_and_pairs_are_numbered_in_order_of_appearance() -> None:
    made = binary(24)
    assert made.group_ids().tolist() == [i // 2 for i in range(24)]
    assert made.pair_ids().tolist() == [-1] * 24
    paired = Concept("p", tuple(example(i, pair=str(i // 2) if i > 3 else None) for i in range(24)))
    assert paired.pair_ids().tolist() == [-1] * 4 + [i // 2 for i in range(20)]


def test_hash_depends_on_content_but_not_on_name() -> None:
    made = binary()
    assert replace(made, name="other", licence="MIT", source="here", question="?").hash == made.hash
    first = made.examples[0]
    changed = [
        replace(made, examples=(replace(first, text="another"), *made.examples[1:])),
        replace(made, examples=(replace(first, target=True), *made.examples[1:])),
        replace(made, examples=(replace(first, group="g1"), *made.examples[1:])),
        replace(made, examples=(replace(first, span=(0, 4)), *made.examples[1:])),
        replace(made, position=Position.parse("mean")),
        replace(made, template=True),
        replace(made, answers=(Answer("a", "b", "c", "g0"),)),
    ]
    assert len({made.hash, *(c.hash for c in changed)}) == len(changed) + 1


@given(n=st.integers(40, 120), seed=st.integers(0, 5), size=st.sampled_from([1, 2, 3]))
@settings(max_examples=25, deadline=None)
def test_limit_keeps_groups_whole_and_classes_even(n: int, seed: int, size: int) -> None:
    made = Concept("some", tuple(example(i, i % 5 == 0, group=f"g{i // size}") for i in range(200)))
    few = made.limited(n, seed)
    assert n - size < len(few.examples) <= n
    assert few.hash == made.limited(n, seed).hash
    kept = {e.group for e in few.examples}
    assert [e for e in made.examples if e.group in kept] == list(few.examples)
    if size == 1:
        positive = int(few.labels().sum())
        assert positive == min(40, (n + 1) // 2)


def test_limit_drops_answers_of_dropped_groups() -> None:
    answers = (
        *tuple(Answer(f"prompt {i}", "a", "b", f"g{i}") for i in range(20)),
        Answer("other", "a", "b", "elsewhere"),
    )
    few = binary(40, answers=answers).limited(24)
    assert {a.group for a in few.answers} == {e.group for e in few.examples} | {"elsewhere"}


def test_rejects_limit_with_too_few_groups() -> None:
    made = Concept("some", tuple(example(i, group=f"g{i // 10}") for i in range(200)))
    assert len(made.limited(100).examples) == 100
    with pytest.raises(
        BadInput,
        match=r"a limit of 40 examples is too small, since groups stay whole \(.* 4 groups.*: raise `limit`, up to",
    ):
        made.limited(40)


def test_large_limit_changes_nothing_and_seeds_differ() -> None:
    made = binary(80)
    assert made.limited(80) is made
    assert made.limited(30, 0).hash != made.limited(30, 1).hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"examples": ()}, "no examples"),
        ({"examples": tuple(example(i, True) for i in range(30))}, "all 30 have the label True"),
        ({"examples": tuple(example(i, group=f"g{i % 4}") for i in range(30))}, "4 groups"),
        ({"examples": tuple(example(i, i == 3) for i in range(30))}, "is in 1 group"),
        ({"examples": tuple(replace(example(i), text="same") for i in range(30))}, "all 30 texts are equal"),
        (
            {"examples": (*(example(i) for i in range(30)), replace(example(30), text=" \n"))},
            "example 31 of 31: the text is empty",
        ),
        (
            {"examples": (*(example(i) for i in range(30)), example(30, span=(3, 99)))},
            "inside the text of 14 characters, got 3–99",
        ),
        ({"examples": (*(example(i) for i in range(30)), example(30, 2))}, "True or False, got 2"),
        ({"kind": "classes", "classes": ("a",)}, "must be the index of one of the 1 classes"),
        (
            {"kind": "number", "examples": tuple(example(i, float("nan")) for i in range(30))},
            "must be a finite number, got nan",
        ),
        ({"kind": "number", "examples": tuple(example(i, 3.0) for i in range(30))}, "must vary"),
        ({"kind": "boolean"}, "kind of target must be binary, classes or number"),
        ({"sign": 0}, r"sign must be \+1 or -1, got 0"),
        ({"position": Position.parse("last:span")}, "has no span"),
        ({"examples": tuple(example(i, group=f"g{i}", pair=str(i // 2)) for i in range(30))}, "is in two groups"),
    ],
)
def test_rejects_invalid_concepts(change: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        replace(binary(), **change)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert "'some'" in str(caught.value)


def test_one_class_raises_single_class_error() -> None:
    with pytest.raises(SingleClassError):
        Concept("some", tuple(example(i, 1) for i in range(30)), "classes", ("a", "b"))


def test_each_contrast_pair_is_one_group() -> None:
    made = Concept.from_pairs(
        [f"I love thing {i}." for i in range(12)], [f"I hate thing {i}." for i in range(12)], name="love"
    )
    assert made.labels().tolist() == [True, False] * 12
    assert made.pair_ids().tolist() == made.group_ids().tolist() == [i // 2 for i in range(24)]


def test_data_frame_is_read_like_a_file() -> None:
    frame = pandas.DataFrame(
        {"words": [f"text {i}" for i in range(24)], "score": [i / 10 for i in range(24)], "topic": list(range(12)) * 2}
    )
    made = Concept.from_frame(frame, name="score", text="words", label="score", group="topic")
    assert made.kind == "number"
    assert made.labels().tolist() == pytest.approx([i / 10 for i in range(24)])
    assert made.group_ids().tolist() == list(range(12)) * 2
    frame.loc[5, "score"] = None
    with pytest.raises(BadInput, match="row 5: the score is empty"):
        Concept.from_frame(frame, name="score", text="words", label="score")


def test_derived_groups_join_leaking_texts() -> None:
    texts = ["The sky is blue.", "the SKY  is blue.", "The sky is green."]
    assert len(set(derive_groups(texts))) == 2
    assert len(set(derive_groups(texts, ["a", None, "a"]))) == 1  # joined by way of the first
    questions = [f"Q: What is thing {q}?\tA: It is {a}." for q in range(10) for a in range(3)]
    assert derive_groups(questions) == [f"g{3 * (i // 3)}" for i in range(30)]
    contexts = [f"The person {c} came by late. {a}" for c in range(10) for a in ("It was cold.", "Fish are wet.")]
    assert len(set(derive_groups(contexts))) == 10


def test_template_does_not_join_groups() -> None:
    """Neither an opening that all rows share nor a short one joins rows."""
    assert len(set(derive_groups([f"Answer with yes or no. Is {i} even?" for i in range(30)]))) == 30
    assert len(set(derive_groups([f"No, sir. I have {i}." for i in range(4)] + [f"Text {i}" for i in range(30)]))) == 34


def test_tracing_paper_sets_have_the_right_groups(shared) -> None:
    folder = shared / "tracing_trustworthiness"
    twins = Concept.from_file(folder / "sst2.csv")
    assert len(set(twins.group_ids().tolist())) == len(twins.examples) // 2
    questions = Concept.from_file(folder / "truthfulqa_train.csv")
    assert len(set(questions.group_ids().tolist())) == len({text.split("\t")[0] for text in questions.texts}) == 313
    contexts = Concept.from_file(folder / "stereoset.csv")
    first = {text.split(". ")[0] for text in contexts.texts}
    assert abs(len(set(contexts.group_ids().tolist())) - len(first)) < 20
