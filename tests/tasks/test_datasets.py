"""Multiple-choice tasks: every published format is read, and accuracy follows the model's likelihoods."""

import json

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.interventions import Add
from ontogeny.models.model import load_model
from ontogeny.tasks.accuracy import MultipleChoiceTask
from ontogeny.tasks.datasets import TASK_SOURCES, MultipleChoiceQuestion, read_multiple_choice


@pytest.fixture(scope="module")
def model(tiny):
    return load_model(tiny("gpt_neox"))


ROWS = {
    "query": ({"query": "Two and two?", "choices": ["four", "five"], "gold": 0}, ("Two and two?", " four", 0)),
    "boolq": (
        {"question": "is it so", "passage": "It is.", "answer": True, "title": "x"},
        ("Question: is it so?", " yes", 1),
    ),
    "arc": (
        {"question": "Which?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B", "id": "1"},
        ("Question: Which?", " b", 1),
    ),
    "mmlu hub": (
        {"question": "Which?", "subject": "s", "choices": ["w", "x", "y", "z"], "answer": 2},
        ("A. w\nB. x\nC. y\nD. z\nAnswer:", " C", 2),
    ),
    "mmlu file": (
        {"question": "Which?", "choice0": "w", "choice1": "x", "choice2": "y", "choice3": "z", "answer": "3"},
        ("Which?\nA. w", " D", 3),
    ),
    "piqa": ({"goal": "Open", "sol1": "pull", "sol2": "sing", "label": 0}, ("Question: Open", " pull", 0)),
    "copa": (
        {"premise": "It rained.", "choice1": "I got wet.", "choice2": "I flew.", "question": "effect", "label": 0},
        ("It rained, therefore", " i got wet.", 0),
    ),
    "winogrande": (
        {"sentence": "Ann hit Bo, so _ fell.", "option1": "Ann", "option2": "Bo", "answer": "2"},
        ("Ann hit Bo, so Ann", " fell.", 1),
    ),
    "lambada": ({"text": "It was a dark night"}, ("It was a dark", " night", 0)),
    "concept": (
        {"text": "x", "label": "true", "prompt": "It is", "right": " so", "wrong": " not"},
        ("It is", " so", 0),
    ),
}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_every_format_is_read(name, tmp_path):
    row, (prompt, option, gold) = ROWS[name]
    (tmp_path / "task.jsonl").write_text(json.dumps(row) + "\n")
    (one,) = read_multiple_choice(tmp_path / "task.jsonl")
    assert prompt in one.prompt
    assert (one.options[one.gold], one.gold) == (option, gold)


def test_task_files_are_recognised_by_their_columns(tmp_path):
    import gzip

    import pandas as pd

    row = ROWS["piqa"][0]
    pd.DataFrame([row]).to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    import duckdb

    duckdb.from_df(pd.DataFrame([row])).write_parquet(str(tmp_path / "c.parquet"))
    arc = pd.DataFrame([{"question": "Which?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"}])
    duckdb.from_df(arc).write_parquet(str(tmp_path / "d.parquet"))
    found = [read_multiple_choice(tmp_path / name)[0] for name in ("a.csv", "b.jsonl.gz", "c.parquet")]
    assert found[0] == found[1] == found[2]
    assert read_multiple_choice(tmp_path / "d.parquet")[0].options == (" a", " b")
    for content, words in (
        ("", "must have questions"),
        ('{"text": "x", "label": 1}', "columns of a known task"),
        ('{"who": 1}', "columns of a known task"),
        ('{"goal": "a", "sol1": "b", "sol2": "c", "label": "d"}', "line 1 cannot be read"),
        ("{", "invalid JSON"),
    ):
        (tmp_path / "bad.jsonl").write_text(content)
        with pytest.raises(BadInput, match=words) as caught:
            read_multiple_choice(tmp_path / "bad.jsonl")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(TASK_SOURCES))
def test_named_tasks_are_read(name, shared, monkeypatch):
    monkeypatch.setenv("ONTOGENY_DATA", str(shared))
    found = read_multiple_choice(name)
    assert len(found) > 50
    assert all(0 <= q.gold < len(q.options) and q.prompt for q in found)
    assert all(len(set(zip(q.prompts or q.options, q.options, strict=True))) == len(q.options) for q in found[:50])
    if len(found[0].options) > 1:
        golds = torch.tensor([q.gold for q in found])
        assert golds.bincount().max() < 0.8 * len(found), "the right one stands in several places"


def test_task_accuracy_follows_the_likelihoods(model):
    questions = [MultipleChoiceQuestion("Who?", (" a", " bcd"), 0), MultipleChoiceQuestion("Who?", (" a", " bcd"), 1)]
    task = MultipleChoiceTask.of(model, "t", questions)
    found = task.answered(model)
    assert sorted(found.plain.tolist()) == [0.0, 1.0]
    # One byte a token, so the longer option is the less likely one as a whole, and the mean decides after division.
    assert found.plain[task.questions.index(questions[0])] == 1.0
    # With one option every token has to be the likeliest: it is under an edit that points at it.
    token = model.tokenizer("z").input_ids[0]
    row = model.network.get_output_embeddings().weight[token].detach()
    push = [("resid.2", Add(1e4 * (row - row.mean())), "last")]
    alone = MultipleChoiceTask.of(
        model, "l", [MultipleChoiceQuestion("Who?", ("z",), 0), MultipleChoiceQuestion("Who?", ("y",), 0)]
    )
    assert alone.answered(model, push).plain.tolist() == [float(q.options == ("z",)) for q in alone.questions]
    assert alone.answered(model).plain.tolist() == [0.0, 0.0]
    long = MultipleChoiceQuestion("x" * 200, (" a", " b"), 0)
    assert MultipleChoiceTask.of(model, "t", [long, questions[0]]).left_out in (0, 1)
    with pytest.raises(BadInput, match="a question of t must fit"):
        MultipleChoiceTask.of(model, "t", [long])


def read(folder, rows, name="task.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_multiple_choice(folder / name)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("query", {"gold": -1}, "the right option must be one of 0 to 1, got -1"),
        ("query", {"gold": 2}, "got 2, which marks a missing answer or counts from 1"),
        ("query", {"gold": 0.5}, "must be a number, got 0.5"),
        ("query", {"gold": None}, "must be a number, got None"),
        ("query", {"gold": True}, "must be a number, got True"),
        ("mmlu file", {"choice2": ""}, "each option must be a text, got None"),
        ("copa", {"question": "why"}, "the question must be cause or effect, got 'why'"),
        ("query", {"choices": ["four", " four "]}, "'four' must differ from the others"),
        ("query", {"choices": ["four"]}, "a list of two or more"),
        ("query", {"choices": "four"}, "a list of two or more"),
        ("query", {"choices": "['four' 'five']"}, "a list of two or more"),
        ("query", {"choices": ["four", ""]}, "each option must be a text, got ''"),
        ("query", {"choices": ["four", None]}, "each option must be a text, got None"),
        ("query", {"query": None}, "the query must be a text"),
        ("boolq", {"answer": -1}, "the answer must be true or false, got -1"),
        ("boolq", {"answer": "maybe"}, "the answer must be true or false, got 'maybe'"),
        ("boolq", {"passage": "nan"}, "the passage must be a text"),
        ("arc", {"answerKey": ""}, "the answerKey must be one of A, B"),
        ("arc", {"answerKey": "C"}, "the answerKey must be one of A, B"),
        ("mmlu hub", {"answer": ""}, "must be a number"),
        ("mmlu hub", {"answer": "AB"}, "must be a number"),
        ("mmlu hub", {"answer": 4}, "must be one of 0 to 3, got 4"),
        ("piqa", {"label": -1}, "must be one of 0 to 1, got -1"),
        ("copa", {"label": -1}, "must be one of 0 to 1, got -1"),
        ("copa", {"choice1": None}, "the choice1 must be a text"),
        ("winogrande", {"answer": ""}, "must be a number"),
        ("winogrande", {"answer": "0"}, "must be one of 0 to 1, got -1"),
        ("winogrande", {"sentence": "Ann fell."}, "must have a _"),
        ("concept", {"wrong": " so"}, "must differ from the others"),
        ("concept", {"wrong": None}, "each option must be a text"),
    ],
)
def test_rejects_rows_without_a_right_answer(name, change, message, tmp_path):
    good = ROWS[name][0]
    with pytest.raises(BadInput, match=f"line 2 cannot be read .*{message}") as caught:
        read(tmp_path, [good, good | change])
    assert "\n" not in str(caught.value)


def test_columns_beyond_the_usual_ones_are_not_left_out(tmp_path):
    """A fifth option counts, `Cause` is a cause, and texts with further columns are no LAMBADA."""
    five = {"question": "Which?", **{f"choice{i}": letter for i, letter in enumerate("vwxyz")}, "answer": 1}
    questions = read(tmp_path, [five, five | {"choice4": ""}, five | {"answer": 4}])
    assert [len(question.options) for question in questions] == [5, 4, 5]
    assert questions[2].gold == 4
    copa = ROWS["copa"][0] | {"question": "Cause"}
    assert read(tmp_path, [copa])[0].prompt.endswith(", because")
    assert len(read(tmp_path, [{"text": "It was a dark night", "domain": None}])) == 1
    with pytest.raises(BadInput, match="must have the columns of a known task"):
        read(tmp_path, [{"text": "It was a dark night", "answer": "bright"}])


@pytest.mark.parametrize(
    ("yes", "no"),
    [
        (True, False),
        ("true", "false"),
        ("True", "False"),
        ("yes", "no"),
        ("Y", "N"),
        ("T", "F"),
        (1, 0),
        (1.0, 0.0),
        ("1.0", "0.0"),
    ],
)
def test_boolq_answers_are_read_in_all_spellings(yes, no, tmp_path):
    row = ROWS["boolq"][0]
    assert [q.gold for q in read(tmp_path, [row | {"answer": yes}, row | {"answer": no}])] == [1, 0]


def test_lists_in_csv_cells_are_read(tmp_path):
    (tmp_path / "a.csv").write_text('query;choices;gold\n"Two; or";"[\'four\', ""five\'s""]";0\n', encoding="utf-16")
    (tmp_path / "b.csv").write_text('query,choices,gold\n"Two; or","[""four"", ""five\'s""]",0\n')
    found = [read_multiple_choice(tmp_path / name) for name in ("a.csv", "b.csv")]
    assert found[0] == found[1] == [MultipleChoiceQuestion("Two; or", (" four", " five's"), 0)]


def test_questions_end_alike_in_every_format(tmp_path):
    arc, piqa = ROWS["arc"][0], ROWS["piqa"][0]
    same = (
        (arc, {"query": "Question: Which?", "choices": ["a", "b"], "gold": 1}),
        (piqa, {"query": "Question: Open\n", "choices": ["pull", "sing"], "gold": 0}),
        (piqa, {"query": "Question: Open\nAnswer:", "choices": ["pull", "sing"], "gold": 0}),
    )
    for one, other in same:
        assert read(tmp_path, [one]) == read(tmp_path, [other])
    assert read(tmp_path, [ROWS["copa"][0]])[0].prompt == "It rained, therefore"


def test_normalised_accuracy_divides_by_characters_without_the_space(model, monkeypatch):
    from ontogeny.tasks import accuracy

    questions = [MultipleChoiceQuestion("Who?", (" ab", " éééé"), 0)]
    task = MultipleChoiceTask.of(model, "t", questions)
    for scores, best in (((-3.0, -5.9), 1), ((-3.0, -6.1), 0)):
        monkeypatch.setattr(accuracy, "log_likelihoods", lambda rows, scores=scores: torch.tensor(scores).double())
        assert task.answered(model).normalised.tolist() == [float(best == 0)]


def test_model_whose_scores_are_no_numbers_chooses_no_option(model, monkeypatch):
    """Half precision can overflow; the largest of several scores is then a NaN, at the first option."""
    from ontogeny.tasks import accuracy

    task = MultipleChoiceTask.of(model, "t", [MultipleChoiceQuestion("Who?", (" ab", " cd"), 0)])
    monkeypatch.setattr(accuracy, "log_likelihoods", lambda rows: torch.tensor([torch.nan, torch.nan]).double())
    found = task.answered(model)
    assert found.plain.tolist() == found.normalised.tolist() == [0.0]
