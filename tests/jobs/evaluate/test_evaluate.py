"""Parts of an evaluation: items, grid, nulls and scorers, each also on data without an effect."""

import pytest
import torch

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.errors import BadInput
from ontogeny.interventions import Add
from ontogeny.jobs.evaluate.grid_search import check_alphas, grid_search
from ontogeny.jobs.evaluate.margins import ScoredItems, can_cache_prompts, prepend_text
from ontogeny.jobs.evaluate.nulls import measure_with_nulls, prompt_baseline
from ontogeny.models.model import load_model
from ontogeny.sites import Site
from ontogeny.steering.methods import SteeringVectors
from ontogeny.steering.steer import Edit
from ontogeny.steering.text_scorers import classifier_scorer, lexicon_scorer
from ontogeny.tasks.contrast_items import ContrastItem, contrast_items, split_items


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


def test_items_follow_the_class_of_the_prompt_if_the_right_answers_do():
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


def test_items_of_pairs_begin_where_the_texts_differ():
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


def test_no_group_is_in_two_splits():
    made = concept(20)
    sides = split_items(made, contrast_items(made))
    fit = {made.examples[i].group for i in sides.fit.tolist()}
    development, test = ({item.group for item in side} for side in (sides.development, sides.test))
    assert min(map(len, (fit, development, test))) > 0
    assert len(fit | development | test) == len(fit) + len(development) + len(test)
    assert {item.group for item in sides.fit_items} == fit
    from ontogeny.measurements.design import make_design
    from ontogeny.measurements.settings import TraceSettings

    traced = make_design(made, TraceSettings(protocol="single-split")).split.test.tolist()
    assert {made.examples[i].group for i in traced} == test, "the test groups of such a trace with the same seed"
    with pytest.raises(BadInput, match="two classes"):
        split_items(Concept("n", tuple(Example(f"t{i}", float(i), str(i)) for i in range(12)), kind="number"), [])


def test_cached_and_full_scores_agree_and_passes_are_counted(model):
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


def test_mc1_and_mc2_of_two_answers_follow_from_the_margin(model):
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


def test_planted_direction_beats_its_nulls_and_a_random_one_does_not(model):
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


def test_grid_search_respects_the_limit_on_cost(model):
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

    def overflowing(edits):
        return cost(edits) * (float("nan") if edits and edits[0].site.layer == 2 else 1)

    assert grid_search(asked, recipe, [1, 2], overflowing, most=1e-6).chosen.choice == "resid.1"
    back = grid_search(asked, recipe, [-1, 1], cost, most=10, desired_sign=-1)
    assert back.chosen.alpha == -1.0
    assert check_alphas([2, 1, 1]) == [0.0, 1.0, 2.0]
    for alphas, words in (([], "empty"), ([0.0], "empty"), ([float("nan")], "finite"), ([float("inf"), 1], "finite")):
        with pytest.raises(BadInput, match=words):
            check_alphas(alphas)


def test_prompt_baseline_needs_no_vector(model):
    asked = ScoredItems.of(model, ITEMS, cached=True)
    assert prepend_text(ITEMS[:1], "Hello. ")[0].prompt == "Hello. It is 0. It is"
    moved = prompt_baseline(asked, "It is light, light, light.")
    assert moved.shape == (8,)
    assert moved.abs().max() > 0


def test_lexicon_matches_whole_words():
    scorer = lexicon_scorer(["sorry", "I can't"])
    assert scorer.score(["I am Sorry.", "sorrysorry", "No, I can't do", ""]) == [1.0, 0.0, 1.0, 0.0]
    with pytest.raises(BadInput, match="needs words"):
        lexicon_scorer([" "])


def test_classifier_reports_its_accuracy():
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
