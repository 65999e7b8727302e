"""Elicitation: a planted answer direction is read, worked examples are of other groups and fit, and bad questions are one line."""

from dataclasses import replace

import pytest
import torch

from ontogeny.data.examples import Answer
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import StudyInputs
from ontogeny.models.model import Model, load_model
from ontogeny.statistics.splits import number_groups
from ontogeny.studies import elicitation
from ontogeny.studies.elicitation import ElicitationSettings
from ontogeny.studies.elicitation import _asking as asking

NAMES = ("Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal")
QUESTIONS = tuple(Answer(f"{name} is", " oz", " um", name) for name in NAMES)
SMALL = ElicitationSettings(shots=2, draws=10, strengths=(2.0,), steering_draws=1, samples=100)


@pytest.fixture(scope="module")
def model(tiny) -> Model:
    return load_model(tiny("gpt2"))


def test_right_answers_that_are_one_word_are_read_and_shuffled_ones_are_not(model: Model) -> None:
    """Every right answer is the same word, so that the direction between the words reads all of them."""
    groups = number_groups(q.group for q in QUESTIONS)
    hits, null, layers = elicitation.readable(model, QUESTIONS, groups, SMALL)
    assert hits.mean() == 1
    assert null.mean() < 0.8
    assert set(layers) <= {"resid.1", "resid.2"}
    mixed = tuple(replace(q, right=q.wrong, wrong=q.right) if i % 2 else q for i, q in enumerate(QUESTIONS))
    assert elicitation.readable(model, mixed, groups, SMALL)[0].mean() < 0.8


def test_worked_examples_are_of_other_groups_and_fit_the_context(model: Model) -> None:
    groups = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    chosen = asking.worked_examples(QUESTIONS, groups, shots=2, seed=0)
    assert all(groups[i] != groups[own] for own, examples in enumerate(chosen) for i in examples)
    prompts = asking.prompts_with_examples(model, QUESTIONS, chosen, "wrong")
    assert all(
        prompt.count(" um\n") == 2 and prompt.endswith(q.prompt) for prompt, q in zip(prompts, QUESTIONS, strict=True)
    )
    long = tuple(replace(q, prompt=q.prompt * 8) for q in QUESTIONS)  # one example fits beside each, two do not
    assert asking.prompts_with_examples(model, long, chosen, "right")[0].count("\n") == 1
    longer = tuple(replace(q, prompt=q.prompt * 15) for q in QUESTIONS)
    rows = list(elicitation.run({"base": model}, StudyInputs(questions=longer), SMALL))
    lost = [row for row in rows if row.metric == "few_shot_accuracy"]
    assert {(row.n, row.note) for row in lost} == {(0, asking.TOO_SHORT)}


def test_equal_likelihoods_count_half(model: Model) -> None:
    model_of_nothing = load_model(model.network.name_or_path)
    with torch.no_grad():
        for parameter in model_of_nothing.network.parameters():
            parameter.zero_()
    assert asking.answered(model_of_nothing, [q.prompt for q in QUESTIONS], QUESTIONS).eq(0.5).all()


@pytest.mark.parametrize(
    ("questions", "says"),
    [
        ((), "at least four groups"),
        (QUESTIONS[:3], "at least four groups"),
        (tuple(replace(q, group="one") for q in QUESTIONS), "at least four groups"),
        (tuple(replace(q, wrong=q.right) for q in QUESTIONS), "two different answers"),
        (tuple(replace(q, right="") for q in QUESTIONS), "answer"),
        (tuple(replace(q, prompt=q.prompt * 40) for q in QUESTIONS), "at most 128 tokens"),
    ],
)
def test_bad_questions_are_one_line(questions: tuple[Answer, ...], says: str, model: Model) -> None:
    with pytest.raises(BadInput, match=says):
        list(elicitation.run({"base": model}, StudyInputs(questions=questions), SMALL))


@pytest.mark.parametrize("field", ["shots", "questions", "draws", "samples"])
def test_bad_settings_are_one_line(field: str) -> None:
    with pytest.raises(BadInput, match=f"`{field}`"):
        ElicitationSettings(**{field: 0})
