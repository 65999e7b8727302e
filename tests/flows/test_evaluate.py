"""`ontogeny evaluate` end to end: what was planted works, what knows nothing does not, and bad input is one line."""

import json
from dataclasses import replace
from functools import partial
from html import escape

import pytest
import torch

from ontogeny.data.concept import Concept
from ontogeny.direction import Direction
from ontogeny.findings.steering_verdicts import steering_verdicts
from ontogeny.findings.timeline import order_like_run
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from ontogeny.sites import Site
from ontogeny.storage.directions import save_direction
from ontogeny.storage.run import Run
from ontogeny.views import empty_reason
from tests.helpers.command_line import Say, command


@pytest.fixture
def evaluate(say: Say) -> Say:
    return partial(say, "evaluate")


def written(path, *, answers=True, groups=12, same=False):
    rows = []
    for g in range(groups):
        for label, word in (("true", "day"), ("false", "night")):
            row = {"text": f"It is {word} {g}.", "label": label, "group": str(g), "pair": f"{g}"}
            if answers:
                row |= {"prompt": f"{row['text']} It is", "right": " light", "wrong": " light" if same else " dark"}
                if label == "false":
                    row |= {"right": row["wrong"], "wrong": row["right"]}
            rows.append(row)
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture
def concept(tmp_path):
    return written(tmp_path / "day.jsonl")


@pytest.fixture
def planted(tiny, tmp_path):
    """The direction that makes ` light` likelier than ` dark`, from the gradient of a random model."""
    from ontogeny.jobs.evaluate.margins import ScoredItems
    from ontogeny.models.model import load_model
    from ontogeny.tasks.contrast_items import ContrastItem

    model = load_model(tiny("gpt_neox"))
    asked = ScoredItems.of(
        model, [ContrastItem(f"It is day {g}. It is", " light", " dark", str(g)) for g in range(4)], cached=True
    )
    basis = torch.eye(model.d) * 0.05
    from ontogeny.interventions import Add

    base = asked.scores().margin.mean()
    slope = [float(asked.scores([("resid.2", Add(row), "last")]).margin.mean() - base) for row in basis]
    return save_direction(
        Direction(torch.tensor(slope), Site("resid", 2), "planted").unit(), tmp_path / "planted.safetensors"
    )


QUICK = (
    "--controls",
    "40",
    "--shuffles",
    "20",
    "--samples",
    "1",
    "--tokens",
    "3",
    "--max-kl",
    "50",
    "--equal-kl",
    "1e-4",
    "--quiet",
)


def test_planted_direction_works_and_its_opposite_does_not(evaluate, tiny, concept, planted, tmp_path):
    out = tmp_path / "run"
    code, text, err = evaluate(tiny("gpt_neox"), "-c", concept, "-m", planted, "--alpha", "0,1,3", *QUICK, "--out", out)
    assert (code, err) == (0, "")
    assert "It works." in text
    against = tmp_path / "against.safetensors"
    from ontogeny.storage.directions import load_direction

    save_direction(-load_direction(planted), against)
    _, text, _ = evaluate(tiny("gpt_neox"), "-c", concept, "-m", against, "--alpha", "0,1,3", *QUICK)
    assert "It does not work: it moves the other way" in text
    table = Run.open(out).records()
    effects = table[table.metric == "steering_effect"]
    zero = effects[[dict(c).get("alpha") == "0" for c in effects.coords]]
    assert (zero.value == 0).all()
    assert len(zero) == 2, "development and test"
    controls = table[table.control == "random_direction"]
    assert set(controls.n) == {40}
    assert set(table.metric) >= {
        "chosen_alpha",
        "steering_p",
        "steering_q",
        "steering_works",
        "promote",
        "suppress",
        "item_nats",
        "mc1",
        "mc2",
        "neutral_kl",
        "neutral_ce_rise",
        "sample_surprise",
        "distinct_2",
    }
    assert table[table.metric == "steering_works"].value.tolist() == [1.0]
    for view in ("dose_response", "effect_cost", "alpha_grid", "sorted_items", "samples"):
        assert empty_reason(Run.open(out).show(view)) is None, view
    assert command("report", out) == 0
    page = (out / "report.html").read_text()
    assert "Dose and response" in page
    [said] = table[table.metric == "steering_works"].note
    assert escape(said, quote=False).replace("'", "&#39;") in page
    assert "Steering vectors" in page
    assert "nothing can be said" not in page
    assert "has no score in this table" not in page
    asked = {"methods": ["planted"], "alphas": [0.0, 1.0, 3.0], "controls": 40, "seed": 0, "neutral_texts": 0}
    assert asked.items() <= Run.open(out).about["evaluations"]["day"].items()


def test_every_method_runs_on_an_untrained_model(evaluate, tiny, concept, tmp_path):
    names = ("tracing_vector", "caa", "iti", "ablate")
    args = [tiny("gpt_neox"), "-c", concept, *(x for name in names for x in ("-m", name))]
    args += [
        "--alpha",
        "1",
        "--k",
        "1,2",
        "--task",
        concept,
        "--scorer",
        "lexicon:light",
        "--scorer",
        f"classifier:{concept}",
        *QUICK,
    ]
    out = tmp_path / "run"
    code, text, err = evaluate(*args, "--out", out, "--json")
    assert (code, err) == (0, "")
    told = json.loads(text)
    assert len(told["verdicts"]) == 4
    assert told["forwards"] == sum(entry["passes"] for entry in Run.open(out).ledger()) > 1000
    table = Run.open(out).records()
    chosen = {row["method"]: dict(row["coords"]) for row in table[table.metric == "chosen_alpha"].to_dict("records")}
    assert chosen["iti"]["k"] in ("1", "2")
    assert all(chosen[name]["site"] in ("resid.1", "resid.2") for name in ("tracing_vector", "caa"))
    equal = table[table.metric == "effect_at_equal_kl"]
    assert set(equal.method) == {"tracing_vector", "caa", "iti"}
    assert equal.value.notna().all()
    tasks = table[table.metric == "task_accuracy"]
    assert {dict(c)["task"] for c in tasks.coords} == {"day"}
    assert set(table[table.metric == "scored_share"].method) == {"lexicon", "classifier:day"}
    assert table[table.metric == "scorer_accuracy"].value.between(0, 1).all()
    before = len(table)
    code, _, err = evaluate(*args, "--out", out)
    assert code == 0
    assert len(Run.open(out).records()) == before
    assert len(Run.open(out).ledger()) == 1, "what is done is not done twice"


def test_a_dry_run_does_nothing(evaluate, tiny, concept, tmp_path):
    code, text, _ = evaluate(tiny("gpt_neox"), "-c", concept, "--out", tmp_path / "run", "--dry-run")
    assert code == 0
    assert "alpha chosen on" in text
    assert not (tmp_path / "run").exists()
    told = json.loads(evaluate(tiny("gpt_neox"), "-c", concept, "--dry-run", "--json")[1])
    assert told["concepts"][0]["forwards"] > 0
    # One method at four multiples of its vector.
    assert (told["effects"], told["controls"], told["controls_needed"]) == (4, 200, 80)
    few = evaluate(tiny("gpt_neox"), "-c", concept, "--controls", "40", "--dry-run")[1]
    assert "too few controls to tell of an effect that is alone (80 needed): add --controls 80" in few
    assert "too few" not in text


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--alpha", ""], "--alpha must be finite numbers"),
        (["--alpha", "0"], "other than 0"),
        (["--alpha", "1,nan"], "finite numbers"),
        (["--k", "0"], "whole numbers"),
        (["--k", ""], "--k must be whole numbers"),
        (["-m", "cca"], "did you mean caa"),
        (["-m", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--where", "lst"], "did you mean last"),
        (["--aim", "rigt"], "did you mean right"),
        (["--max-kl", "0"], "above 0"),
        (["--equal-kl", "nan"], "above 0"),
        (["--task", "arc_eesy"], "did you mean arc_easy"),
        (["--scorer", "judge:x"], "no scorer called"),
        (["--scorer", "lexicon:"], "needs words"),
        (["--neutral", "no.txt"], "no.txt cannot be read"),
        (["--sites", "mlp"], "residual stream"),
        (["--sites", "resid.9"], "does not exist"),
        (["-m", "iti", "--k", "100"], "must be at most"),
        (["--limit", "1"], "--limit must be at least 2"),
    ],
)
def test_invalid_arguments_are_rejected_in_one_line(evaluate, tiny, concept, args, words):
    code, out, err = evaluate(tiny("gpt_neox"), "-c", concept, *QUICK, *args)
    assert code == 2
    assert words in err
    assert err.startswith("ontogeny: ")
    assert err.count("\n") == 1
    assert not out


def test_directions_that_do_not_fit_are_rejected(evaluate, tiny, concept, tmp_path):
    for name, direction, words in (
        ("wide", Direction(torch.ones(7), Site("resid", 1), "wide"), "got 7"),
        ("deep", Direction(torch.ones(32), Site("resid", 9), "deep"), "does not exist"),
        ("other", Direction(torch.ones(32), Site("resid", 1), "other", tokenizer="feed"), "another tokenizer"),
    ):
        path = save_direction(direction, tmp_path / f"{name}.safetensors")
        code, _, err = evaluate(tiny("gpt_neox"), "-c", concept, "-m", path, *QUICK)
        assert code == 2
        assert words in err


def test_concepts_that_cannot_be_steered_are_rejected(evaluate, tiny, tmp_path):
    bare = written(tmp_path / "bare.jsonl", answers=False)
    rows = [json.loads(line) for line in bare.read_text().splitlines()]
    bare.write_text("\n".join(json.dumps({k: v for k, v in row.items() if k != "pair"}) for row in rows))
    same = written(tmp_path / "same.jsonl", same=True)
    few = written(tmp_path / "few.jsonl", groups=10)
    cut = [json.loads(line) for line in few.read_text().splitlines()]
    for row in cut[4:]:
        for key in ("prompt", "right", "wrong"):
            row.pop(key)
    few.write_text("\n".join(json.dumps(row) for row in cut))
    for path, words in ((bare, "neither questions"), (same, "must be two answers"), (few, "add groups")):
        code, _, err = evaluate(tiny("gpt_neox"), "-c", path, *QUICK)
        assert code == 2
        assert words in err
        assert err.count("\n") == 1


def test_direction_of_a_trace_is_evaluated_in_its_run(evaluate, tiny, concept, tmp_path):
    settings = TraceSettings(sites="resid", fits=("logistic", "mass_mean"), kernels=(), untrained=False)
    run = trace(Lineage.open(tiny("gpt_neox")), [Concept.from_file(concept)], tmp_path / "run", settings)
    before = len(run.records())
    told = (tiny("gpt_neox"), "-c", concept, "-m", f"{run.folder}:day", "--alpha", "1", *QUICK)
    code, text, err = evaluate(*told, "--out", run.folder)
    assert (code, err) == (0, "")
    assert "day, given at resid." in text
    assert "test questions (fitted on all groups, those of the test questions too)" in one_line(text)
    assert len(run.records()) > before
    assert len(run.records("metric = 'steering_works'")) == 1
    assert [c["name"] for c in run.about["concepts"]] == ["day"]
    (tmp_path / "more").mkdir()
    other = written(tmp_path / "more/day.jsonl", groups=14)
    code, _, err = evaluate(tiny("gpt_neox"), "-c", other, *QUICK, "--out", run.folder)
    assert code == 2
    assert "other examples of the concept 'day'" in err
    code, _, err = evaluate(tiny("llama"), "-c", concept, *QUICK, "--out", run.folder)
    assert code == 2
    assert "--out must hold a run of" in err


def test_verdict_says_whether_a_direction_was_fitted_on_the_test_questions(evaluate, tiny, concept, tmp_path):
    (tmp_path / "more").mkdir()
    other = written(tmp_path / "more/day.jsonl", groups=14)
    settings = TraceSettings(sites="resid", fits=("mass_mean",), kernels=(), untrained=False, permutations=100)
    for protocol, evaluated, seen in (
        ("cross-fit", concept, True),
        ("cross-fit", other, False),
        ("single-split", concept, False),
    ):
        out, vector = tmp_path / protocol, tmp_path / f"{protocol}.safetensors"
        run = trace(tiny("gpt_neox"), [concept], out, replace(settings, protocol=protocol))
        save_direction(run.direction("day", site="resid.1"), vector)
        code, text, err = evaluate(tiny("gpt_neox"), "-c", evaluated, "-m", vector, "--alpha", "1", *QUICK)
        assert (code, err) == (0, "")
        assert ("test questions (fitted on all groups, those of the test questions too)" in one_line(text)) == seen


def one_line(text):
    """The text without its line breaks."""
    return " ".join(text.split())


def test_verdicts_are_in_the_order_of_the_lineage(evaluate, tiny, concept, tmp_path):
    """The tuned stage is called before the base by the alphabet, and comes after it."""
    (tmp_path / "lineage.toml").write_text(
        f'name = "two"\n[[stages]]\nname = "zero"\nsource = "{tiny("gpt_neox")}"\n'
        f'[[stages]]\nname = "after"\nsource = "{tiny("gpt_neox", seed=1)}"\nparent = "zero"\n'
    )
    told = evaluate(tmp_path / "lineage.toml", "-c", concept, *QUICK, "--out", tmp_path / "run")
    assert told.code == 0, told.err
    said = [line for line in told.out.splitlines() if "test questions" in line]
    assert ["(zero " in line for line in said] == [True, False]
    [one] = steering_verdicts(order_like_run(Run.open(tmp_path / "run").records(), Run.open(tmp_path / "run").about))
    assert list(one.sentences) == said


def test_trace_after_an_evaluation_sets_the_settings(evaluate, say, tiny, concept, tmp_path):
    assert evaluate(tiny("gpt_neox"), "-c", concept, *QUICK, "--out", tmp_path / "run").code == 0
    judged = Run.open(tmp_path / "run").about
    assert judged["settings"] == {}
    assert judged["evaluations"]["day"]["dtype"] == "float32"
    traced = say("trace", tiny("gpt_neox"), "-c", concept, "--sites", "resid", "--seed", 3, "-o", tmp_path / "run")
    assert traced.code == 0, traced.err
    about = Run.open(tmp_path / "run").about
    assert (about["settings"]["seed"], about["settings"]["sites"]) == (3, "resid")
    assert about["evaluations"] == judged["evaluations"]
    again = say("trace", tiny("gpt_neox"), "-c", concept, "--sites", "resid", "-o", tmp_path / "run")
    assert "--seed must be 3" in again.err


def test_broken_checkpoint_does_not_stop_the_others(evaluate, tiny, concept, tmp_path):
    import shutil

    for step in (1, 2):
        shutil.copytree(tiny("gpt_neox"), tmp_path / f"runs/checkpoint-{step}")
    (tmp_path / "runs/checkpoint-1/config.json").write_text("{")
    code, text, err = evaluate(tmp_path / "runs", "-c", concept, "--steps", "all", "--alpha", "1", *QUICK)
    assert code == 1
    assert "tracing_vector" in text
    assert "not evaluated: " in err
    assert "checkpoint-1" in err
