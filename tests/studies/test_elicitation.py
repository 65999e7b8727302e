"""Elicitation: a planted direction is read, a planted vector steers, a planted order is found, and bad questions are one line."""

from dataclasses import replace

import pytest
import torch

from ontogeny.data.examples import Answer
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import StudyInputs
from ontogeny.models.model import Model, load_model
from ontogeny.records import StageRowBuilder
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import group_weights
from ontogeny.statistics.splits import number_groups
from ontogeny.studies import elicitation
from ontogeny.studies.elicitation import ElicitationSettings
from ontogeny.studies.elicitation import _asking as asking
from ontogeny.studies.elicitation import _order as order
from ontogeny.studies.elicitation import _steering as steering

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


def test_a_vector_that_says_the_right_answer_steers_and_a_useless_one_is_not_chosen(model: Model) -> None:
    """Every right answer is the same word, so that its row of the unembedding makes it likelier."""
    both = [model.tokenizer(word, add_special_tokens=False)["input_ids"] for word in (" oz", " um")]
    right, wrong = next(pair for pair in zip(*both, strict=False) if pair[0] != pair[1])
    embedding = model.network.get_output_embeddings().weight.detach()
    planted = embedding[right] - embedding[wrong]
    train = torch.arange(len(QUESTIONS)) < 4
    plain = torch.zeros(len(QUESTIONS), dtype=torch.float64)
    site = Site("resid", model.layers)
    for sign, share, name in ((1.0, 1.0, f"planted × 50 at {site}"), (-1.0, 0.0, "none")):
        vectors = {("planted", site): sign * planted}
        hits, chosen = steering._best_on_train(model, QUESTIONS, vectors, plain, train, ~train, (50.0,))
        assert (hits.mean(), chosen) == (share, name)


def test_what_is_read_before_it_is_shown_has_a_negative_distance() -> None:
    """Ten checkpoints; readable from the fourth on, shown from the seventh on, in thirty groups."""
    noise = torch.rand(2, 10, 30, generator=torch.Generator().manual_seed(0))
    steps = [2**i for i in range(10)]
    share = {order.SHOWN: [0.5] * 6 + [0.95] * 4, "readable": [0.5] * 3 + [0.95] * 7}
    hits = {
        f"base:{step}": {
            (way, None): (noise[k, i] < share[way][i]).double() for k, way in enumerate((order.SHOWN, "readable"))
        }
        for i, step in enumerate(steps)
    }
    hits["dpo"] = hits["base:512"]  # a stage of one checkpoint has no order
    table = StageRowBuilder("questions", "last", "elicitation", 0)
    weights = group_weights(torch.arange(30), samples=200, seed=0).double()
    rows = {row.metric: row for row in order.order_rows(table, hits, weights, seed=0)}
    assert {row.stage for row in rows.values()} == {"base:512"}
    assert 4 <= rows["readable_step"].value <= 8 < 32 <= rows["shown_step"].value <= 64
    assert rows["readable_minus_shown"].high < 0
    still = {name: {**ways, ("readable", None): hits["base:1"]["readable", None]} for name, ways in hits.items()}
    row = next(r for r in order.order_rows(table, still, weights, seed=0) if r.metric == "readable_minus_shown")
    assert (row.n, "step of this way" in str(row.note)) == (0, True)


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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shots", 0),
        ("questions", 0),
        ("draws", 0),
        ("samples", 0),
        ("steering_draws", -1),
        ("strengths", ()),
        ("strengths", (0.0,)),
    ],
)
def test_bad_settings_are_one_line(field: str, value: object) -> None:
    with pytest.raises(BadInput, match=f"`{field}`"):
        ElicitationSettings(**{field: value})
