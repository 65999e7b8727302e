"""Shrinkage of LEACE erases with many examples per dimension; with too few the concept stays readable, and the note says how many."""

from tests.simulation.erasure import scores_after_erasure


def test_erasure_holds_on_new_examples_with_four_per_dimension() -> None:
    before, after = scores_after_erasure(4.0, 0.01, d=24, sets=4)
    assert before.mean() > 0.9
    assert abs(float(after.mean()) - 0.5) < 0.1


def test_erasure_leaves_a_concept_with_half_an_example_per_dimension() -> None:
    before, after = scores_after_erasure(0.5, 0.01, d=48, sets=4)
    assert float(before.mean()) > float(after.mean()) > 0.6
