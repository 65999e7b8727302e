"""The parts of an evaluation: items, grids, nulls, tasks and scorers, each with the case in which it must not find anything."""

import json

import pytest
import torch

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.errors import BadInput
from ontogeny.interventions import Add
from ontogeny.jobs.evaluate.contrast_items import ContrastItem, contrast_items, split_items
from ontogeny.jobs.evaluate.grid_search import check_alphas, grid_search
from ontogeny.jobs.evaluate.margins import ScoredItems, can_cache_prompts, prepend_text
from ontogeny.jobs.evaluate.nulls import measure_with_nulls, prompt_baseline
from ontogeny.jobs.evaluate.text_scorers import classifier_scorer, lexicon_scorer
from ontogeny.models.model import load_model
from ontogeny.sites import Site
from ontogeny.steering.methods import SteeringVectors
from ontogeny.steering.steer import Edit
from ontogeny.tasks.accuracy import MultipleChoiceTask
from ontogeny.tasks.datasets import TASK_SOURCES, MultipleChoiceQuestion, read_multiple_choice


def concept(groups=12, *, turn=True, prompt="{} Then it is"):
    examples, answers = [], []
    for g in range(groups):
        for positive, text in ((True, f"The sun is up {g}."), (False, f"The moon is up {g}.")):
            examples.append(Example(text, positive, str(g), str(g)))
            right, wrong = (" day", " night") if positive or not turn else (" night", " day")
            answers.append(Answer(prompt.format(text), right, wrong, str(g)))
    return Concept("day", tuple(examples), answers=tuple(answers))


@pytest.fixture(scope="module")
def model(tiny):
    return load_model(tiny("gpt_neox"))


ITEMS = [ContrastItem(f"It is {g}. It is", " light", " dark", str(g // 2)) for g in range(8)]


def test_what_shows_the_concept_turns_with_the_prompt_only_where_the_answers_do():
    assert {(i.matching, i.other) for i in contrast_items(concept())} == {(" day", " night")}
    assert {(i.matching, i.other) for i in contrast_items(concept(), "right")} == {
        (" day", " night"),
        (" night", " day"),
    }
    assert {(i.matching, i.other) for i in contrast_items(concept(turn=False))} == {(" day", " night")}
    foreign = concept(prompt="Say: {}")
    assert {i.matching for i in contrast_items(foreign)} == {" day", " night"}, (
        "no text begins the prompt: what is right"
    )
    with pytest.raises(BadInput, match="its class is not known"):
        contrast_items(foreign, "positive")


def test_pairs_part_where_their_texts_do_and_follow_a_neighbour_if_at_once():
    texts = [(f"It was {g} and we {word} home.", word == "ran", g) for g in range(12) for word in ("ran", "slept")]
    inside = Concept("ran", tuple(Example(t, y, str(g), str(g)) for t, y, g in texts))
    assert contrast_items(inside)[0] == ContrastItem("It was 0 and we", " ran", " slept", "0")
    rows = [
        (f"{start} that {g} is {i}.", start == "Books say", g, i)
        for g in range(12)
        for i in (0, 1)
        for start in ("Books say", "They said")
    ]
    at_once = Concept("books", tuple(Example(t, y, str(g), f"{g}.{i}") for t, y, g, i in rows))
    made = contrast_items(at_once)
    assert made[0] == ContrastItem("Books say that 0 is 1.", " Books say", " They said", "0")
    assert made[1].prompt == "They said that 0 is 1."
    assert len(made) == 4 * 12, "behind either class of the next pair"
    alone = Concept("books", tuple(Example(t, y, str(g), f"{g}") for t, y, g, i in rows if i == 0))
    assert {item.prompt for item in contrast_items(alone)} == {"."}


def test_no_group_is_on_two_sides():
    made = concept(20)
    sides = split_items(made, contrast_items(made))
    fit = {made.examples[i].group for i in sides.fit.tolist()}
    development, test = ({item.group for item in side} for side in (sides.development, sides.test))
    assert min(map(len, (fit, development, test))) > 0
    assert len(fit | development | test) == len(fit) + len(development) + len(test)
    assert {item.group for item in sides.fit_items} == fit
    from ontogeny.measurements.design import make_design
    from ontogeny.measurements.settings import TraceSettings

    traced = make_design(made, TraceSettings()).split.test.tolist()
    assert {made.examples[i].group for i in traced} == test, "the test groups of a trace with the same seed"
    with pytest.raises(BadInput, match="needs two classes"):
        split_items(Concept("n", tuple(Example(f"t{i}", float(i), str(i)) for i in range(12)), kind="number"), [])


def test_scores_are_the_same_kept_or_whole_and_passes_are_counted(model):
    kept, whole = (ScoredItems.of(model, ITEMS, cached=cached) for cached in (True, False))
    edits = [Edit(Site("resid", 1), Add(0.1 * torch.arange(model.d)), "last")]
    for given in ((), edits):
        torch.testing.assert_close(kept.scores(given).margin, whole.scores(given).margin, rtol=1e-4, atol=1e-5)
    assert kept.scores(edits).margin.ne(kept.scores().margin).all()
    assert (whole.passes.whole, whole.passes.prompts, kept.passes.prompts) == (32, 0, 16)
    assert kept.passes.total == kept.passes.prompts + kept.passes.answers
    assert can_cache_prompts(edits)
    assert not can_cache_prompts([("resid.1", Add(torch.arange(model.d) + 1.0), "all")])
    with pytest.raises(BadInput, match="same tokens"):
        ScoredItems.of(model, [ContrastItem("It is", " light", " light", "0")], cached=False)


def test_the_margin_of_two_is_mc1_and_mc2(model):
    from ontogeny.tasks.truthfulqa_mc import TruthfulQAQuestion, score_multiple_choice

    margin = ScoredItems.of(model, ITEMS, cached=True).scores().margin
    found = score_multiple_choice(model, [TruthfulQAQuestion(i.prompt, (i.matching,), (i.other,)) for i in ITEMS])
    torch.testing.assert_close(margin.sigmoid(), found.mc2, rtol=1e-4, atol=1e-6)
    assert ((margin > 0).double() == found.mc1).all()


def slope(model, asked, size=0.05):
    """The direction at resid.2 along which the margin grows."""
    base = asked.scores().margin.mean()
    rows = size * torch.eye(model.d)
    return torch.tensor([float(asked.scores([("resid.2", Add(v), "last")]).margin.mean() - base) for v in rows])


def test_a_planted_direction_beats_its_nulls_and_a_random_one_does_not(model):
    asked = ScoredItems.of(model, ITEMS, cached=True)
    direction = slope(model, asked)
    unit = direction / direction.norm()
    site = Site("resid", 2)
    shuffled = [SteeringVectors("x", "site", {"resid.2": ((site, 0.3 * s * unit),)}) for s in (-1, 1) for _ in range(5)]
    for vector, works in ((unit, True), (torch.randn(model.d, generator=torch.Generator().manual_seed(4)), False)):
        recipe = SteeringVectors("planted", "site", {"resid.2": ((site, vector / vector.norm()),)})
        found = measure_with_nulls(asked, recipe, "resid.2", 1.0, controls=60, permuted=shuffled)
        assert (found.value > found.random.high and found.random.p < 0.05) == works
        assert len(found.random.controls) == 60
        assert found.permuted_labels is not None
        assert len(found.permuted_labels.controls) == 10
        zero = measure_with_nulls(asked, recipe, "resid.2", 0.0, controls=2)
        assert torch.equal(zero.shift, torch.zeros_like(zero.shift))
        assert zero.random.controls.abs().max() == 0


def test_alpha_is_chosen_where_the_cost_is_bearable(model):
    asked = ScoredItems.of(model, ITEMS, cached=True)
    unit = slope(model, asked) / slope(model, asked).norm()
    recipe = SteeringVectors(
        "x", "site", {"resid.2": ((Site("resid", 2), unit),), "resid.1": ((Site("resid", 1), 0.01 * unit),)}
    )

    def cost(edits):
        return torch.tensor([float(sum(e.what.shift.norm() for e in edits))] * 3)

    free = grid_search(asked, recipe, [0, 1, 2], cost, most=10)
    assert (free.chosen.choice, free.chosen.alpha) == ("resid.2", 2.0)
    assert len(free.cells) == 6
    assert all(torch.equal(c.shift, torch.zeros(8, dtype=c.shift.dtype)) for c in free.cells if c.alpha == 0)
    tight = grid_search(asked, recipe, [0, 1, 2], cost, most=1.5)
    assert (tight.chosen.choice, tight.chosen.alpha) == ("resid.2", 1.0)
    none = grid_search(asked, recipe, [1, 2], cost, most=1e-6)
    assert (none.chosen.choice, none.chosen.alpha) == ("resid.1", 1.0)
    assert "costs more than" in none.note
    back = grid_search(asked, recipe, [-1, 1], cost, most=10, desired_sign=-1)
    assert back.chosen.alpha == -1.0
    assert check_alphas([2, 1, 1]) == [0.0, 1.0, 2.0]
    for alphas, words in (([], "empty"), ([0.0], "empty"), ([float("nan")], "finite"), ([float("inf"), 1], "finite")):
        with pytest.raises(BadInput, match=words):
            check_alphas(alphas)


def test_a_prompt_alone_is_measured_without_a_vector(model):
    asked = ScoredItems.of(model, ITEMS, cached=True)
    assert prepend_text(ITEMS[:1], "Hello. ")[0].prompt == "Hello. It is 0. It is"
    moved = prompt_baseline(asked, "It is light, light, light.")
    assert moved.shape == (8,)
    assert moved.abs().max() > 0


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


def test_files_are_read_by_what_they_hold(tmp_path):
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
        ("", "no questions"),
        ('{"text": "x", "label": 1}', "no known task"),
        ('{"who": 1}', "no known task"),
        ('{"goal": "a", "sol1": "b", "sol2": "c", "label": "d"}', "row 1"),
        ("{", "cannot be read"),
    ):
        (tmp_path / "bad.jsonl").write_text(content)
        with pytest.raises(BadInput, match=words) as caught:
            read_multiple_choice(tmp_path / "bad.jsonl")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(TASK_SOURCES))
def test_the_tasks_by_name(name, shared, monkeypatch):
    monkeypatch.setenv("ONTOGENY_DATA", str(shared))
    found = read_multiple_choice(name)
    assert len(found) > 50
    assert all(0 <= q.gold < len(q.options) and q.prompt for q in found)
    assert all(len(set(zip(q.prompts or q.options, q.options, strict=True))) == len(q.options) for q in found[:50])
    if len(found[0].options) > 1:
        golds = torch.tensor([q.gold for q in found])
        assert golds.bincount().max() < 0.8 * len(found), "the right one stands in several places"


def test_a_task_is_answered_by_the_models_own_likelihoods(model):
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


def test_a_lexicon_counts_whole_words():
    scorer = lexicon_scorer(["sorry", "I can't"])
    assert scorer.score(["I am Sorry.", "sorrysorry", "No, I can't do", ""]) == [1.0, 0.0, 1.0, 0.0]
    with pytest.raises(BadInput, match="needs words"):
        lexicon_scorer([" "])


def test_a_classifier_tells_how_often_it_is_right():
    known = Concept(
        "mood",
        tuple(Example(f"a {w} thing {g}", w == "lovely", str(g)) for g in range(40) for w in ("lovely", "awful")),
    )
    scorer = classifier_scorer(known)
    assert (scorer.accuracy, scorer.n) == (1.0, 24)
    good, bad = scorer.score(["so lovely", "so awful"])
    assert good > 0.5 > bad
    assert scorer.score([]) == []
    nothing = Concept(
        "nothing", tuple(Example(f"thing {g} {i}", i == (g % 2), str(g)) for g in range(40) for i in (0, 1))
    )
    assert classifier_scorer(nothing).accuracy < 0.8, "on nothing it says so"
