"""`import ontogeny as on`: from a model to a probe, a steered text and a run, with strings in place of objects."""

import html
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import ontogeny as on
from ontogeny import plugins
from ontogeny.measurements.design import make_design
from tests.helpers.planted_lineages import rows, save_run, write
from tests.helpers.tiny_models import SHAPES, save_tiny

SETTINGS = dict(sites="resid", resamples=100, permutations=100, untrained=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("front")
    save_run(home / "sft", {1000: 0.0, 3000: 8.0})
    write(home / "planted.csv", rows(characters=40))
    return home


@pytest.fixture(scope="module")
def model(home: Path) -> on.Model:
    return on.load_model(str(home / "sft"), step=3000)


@pytest.fixture(scope="module")
def planted(home: Path) -> on.Concept:
    return on.load_concept(home / "planted.csv")


@pytest.fixture(scope="module")
def acts(model: on.Model, planted: on.Concept) -> on.Activations:
    return on.capture(model, planted, sites="resid")


@pytest.fixture(scope="module")
def run(home: Path) -> on.Run:
    frame = pd.read_csv(home / "planted.csv")
    frame.attrs["name"] = "my_frame"
    settings = on.TraceSettings(protocol="paper", **SETTINGS)
    return on.trace(str(home / "sft"), [str(home / "planted.csv"), frame], settings=settings)


def test_a_probe_steers_the_model_it_was_fitted_on(model: on.Model, acts: on.Activations) -> None:
    probe = on.fit_probe(acts, "mass_mean")
    assert probe.score(acts)["resid.2"] > 0.95
    plain = model.generate("so they say", tokens=4)
    assert isinstance(plain, str)
    with on.steer(model, on.Add(probe.direction("resid.2"), alpha=400)):
        steered = model.generate("so they say", tokens=4)
        assert model.generate(["so they say"], tokens=4) == [steered]
    assert steered != plain
    assert model.generate("so they say", tokens=4) == plain
    written = on.Add(probe.direction("resid.1").vector * 400)
    with pytest.raises(on.BadInput, match=r"must be made from a direction.*\('resid\.6', Add\(vector\)\)"):
        on.steer(model, written).__enter__()


def test_activations_have_labels_groups_and_tokens(acts: on.Activations, planted: on.Concept) -> None:
    assert tuple(acts.parts["resid"].shape) == (3, 80, 32)
    assert torch.equal(acts.labels, planted.labels())
    assert torch.equal(acts.groups, planted.group_ids())
    assert [len(tokens) for tokens in acts.tokens] == [len(text) for text in planted.texts]  # a token is a byte
    assert torch.equal(acts["resid.1"], acts.parts["resid"][1])
    some = acts.select(acts.groups < 10)
    assert len(some) == 20
    assert torch.equal(some["resid.1"], acts["resid.1"][:20])
    assert some.texts == planted.texts[:20]


def test_score_of_a_fitted_probe_equals_the_row_of_the_trace(acts: on.Activations, run: on.Run) -> None:
    """Where the trace fits on one part of the groups and scores the other, so does a user."""
    settings = on.TraceSettings(protocol="paper", **SETTINGS)
    for name in ("planted", "my_frame"):
        traced = run.records(metric=["auroc", "accuracy"], concept=name, step=3000, method="mass_mean", control=None)
        held = make_design(_same_texts(acts), settings).split
        probe = on.fit_probe(acts.select(held.train), "mass_mean")
        for metric in ("auroc", "accuracy"):
            rows = traced[traced["metric"] == metric].set_index("site")["value"]
            mine = probe.score(acts.select(held.test), metric)
            assert list(mine.index) == ["resid.0", "resid.1", "resid.2"]
            assert mine.to_dict() == pytest.approx(rows.to_dict(), abs=1e-6)
        unlike = on.fit_probe(acts.select(held.test), "mass_mean").direction("resid.2")
        theirs, mine = run.direction(name, site="resid.2"), probe.direction("resid.2")
        assert mine.cosine(theirs) == pytest.approx(1, abs=1e-5)
        assert unlike.cosine(theirs) < 0.999
        assert (mine.site, mine.scale, mine.sign, mine.tokenizer) == (
            theirs.site,
            theirs.scale,
            theirs.sign,
            theirs.tokenizer,
        )


def _same_texts(acts: on.Activations) -> on.Concept:
    origin = acts.origin
    assert origin is not None
    examples = [
        on.Example(text, bool(label), f"c{group}")
        for text, label, group in zip(origin.texts, acts.labels.tolist(), acts.groups.tolist(), strict=True)
    ]
    return on.Concept("same", tuple(examples))


def test_a_run_reads_as_pandas_and_as_an_arrow_stream(run: on.Run) -> None:
    import duckdb

    table = run.records(metric="auroc", control=None)
    assert set(table["metric"]) == {"auroc"}
    assert table["control"].isna().all()
    assert set(run.records(step=[1000])["step"]) == {1000}
    assert len(run.records("value > 2", metric="auroc")) == 0
    ((count,),) = duckdb.connect().sql("select count(*) from run").fetchall()  # reads the stream of `run`
    assert count == len(run.records())
    assert run.failures == []
    with pytest.raises(on.BadInput, match="`metric` must be a value, a list of values or None"):
        run.records(metric=[])


def test_monitor_and_evaluate_have_the_shape_of_trace(run: on.Run, home: Path) -> None:
    assert on.monitor(run.folder, [0.2]).folder == run.folder
    assert len(run.records(metric="tpr_at_fpr")) or len(run.records("metric like 'tpr%'"))
    for job in (on.trace, on.evaluate, on.transfer):
        names = list(inspect.signature(job).parameters)
        assert names[:4] == ["source", "concepts", "out", "settings"], job
        assert {"model", "on_progress"} <= set(names)
        assert inspect.signature(job).parameters["out"].default is None
    assert list(inspect.signature(on.compare).parameters)[:3] == ["source", "inputs", "out"]
    assert on.audit(str(home / "sft")).checkpoints == 2


def test_each_token_is_read_where_it_stands(model: on.Model, acts: on.Activations, planted: on.Concept) -> None:
    """The score at the last token is the score of the text, and a later word does not change an earlier one."""
    probe = on.fit_probe(acts, "mass_mean")
    text = planted.texts[3]
    reading = on.read(model, probe, text)
    assert "".join(reading.tokens) == text
    assert reading.rows == ("resid.0", "resid.1", "resid.2")
    whole = probe.scores(acts, "resid.2")[3, 0]
    assert float(reading.scores[2, -1]) == pytest.approx(float(whole), abs=1e-4)
    longer = on.read(model, probe, text + " and more", "resid.2")
    assert torch.allclose(longer.scores[0, : len(text)], reading.scores[2], atol=1e-4)
    along = on.read(model, probe.direction("resid.2"), text)
    assert torch.allclose((along.scores - reading.scores[2]).diff(), torch.zeros(len(text) - 1), atol=1e-4)
    with pytest.raises(on.BadInput, match="`text` must have at most 64 tokens"):
        on.read(model, probe, "x" * 70)


def test_texts_that_end_alike_are_read_behind_the_embedding(model: on.Model, planted: on.Concept) -> None:
    """All statements end with a full stop: at the embedding of that token nothing tells them apart."""
    positive, negative = ([e.text + "." for e in planted.examples if bool(e.target) is side] for side in (True, False))
    count = min(len(positive), len(negative))
    stopped = on.Concept.from_pairs(positive[:count], negative[:count])
    probe = on.fit_probe(on.capture(model, stopped, "resid"), "mass_mean")
    assert on.read(model, probe, positive[0]).rows == ("resid.1", "resid.2")
    with pytest.raises(on.BadInput, match=r"resid\.0 has no direction, since all examples are alike there"):
        on.read(model, probe, positive[0], "resid.0")


def test_tokens_are_read_at_every_checkpoint_and_drawn(run: on.Run, home: Path) -> None:
    text = rows(characters=3)[0]["text"]
    on.read_checkpoints(run, "planted", [text, "we have seen it"], site="resid.2")
    scores = run.records(metric="token_score")
    assert set(zip(scores["step"], scores["site"], strict=True)) == {(1000, "resid.2"), (3000, "resid.2")}
    late = scores[scores["step"].eq(3000) & scores["coords"].map(lambda c: dict(c)["text"]).eq("0")]
    late = late.assign(token=late["coords"].map(lambda c: int(dict(c)["token"]))).sort_values("token")
    assert "".join(late["coords"].map(lambda c: dict(c)["word"])) == text
    probe_at_3000 = run.direction("planted", site="resid.2", step=3000)
    along = on.read(on.load_model(home / "sft", step=3000), probe_at_3000, text).scores[0]
    assert torch.allclose(torch.tensor(late["value"].to_numpy()).float().diff(), along.diff(), atol=1e-4)
    drawn = run.show("token_ribbon").to_dict()
    assert text.split()[-1] in str(drawn)
    with pytest.raises(on.BadInput, match="no traced concept called 'plante'; did you mean planted"):
        on.read_checkpoints(run, "plante", text)


@pytest.mark.parametrize("name", [name for name in on.__all__ if name != "__version__"])
def test_public_name_is_documented(name: str) -> None:
    """Each has a docstring; a function has a type for every argument, and explains each in Args."""
    thing = getattr(on, name)
    text = inspect.getdoc(thing) or ""
    assert len(text) > 20
    if inspect.isfunction(thing):
        parameters = inspect.signature(thing).parameters
        assert all(p.annotation is not inspect.Parameter.empty for p in parameters.values())
        assert [p for p in parameters if len(parameters) > 1 and not re.search(rf"\b{p}\b.*:", text)] == []
        assert "Raises:" in text or name == "list_plugins"


def test_tab_lists_the_public_names_and_import_loads_no_framework() -> None:
    assert dir(on) == sorted(on.__all__)
    assert 30 <= len(on.__all__) <= 65
    code = (
        "import sys, ontogeny; dir(ontogeny); print([m for m in ('torch','transformers','pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


HOSTILE = "<script>alert(1)</script> & 'x' \x1b[31m"


def test_displays_escape_what_comes_from_data(model: on.Model, run: on.Run, home: Path) -> None:
    texts = [f"{HOSTILE} {word} {i}" for i in range(10) for word in ("good", "bad")]
    concept = on.Concept.from_pairs(texts[::2], texts[1::2], name=HOSTILE)
    activations = on.capture(model, concept)
    probe = on.fit_probe(activations)
    shown = {
        "lineage": on.Lineage.open(home / "sft"),
        "concept": concept,
        "activations": activations,
        "probe": probe,
        "direction": probe.direction("resid.1"),
        "tokens": on.read(model, probe, HOSTILE, "resid.1"),
        "run": run,
    }
    for kind, value in shown.items():
        page = value._repr_html_()
        assert "<script" not in page, kind
        assert "\x1b" not in page, kind
    assert html.escape("<script>alert(1)</script> & ", quote=True) in shown["concept"]._repr_html_()
    assert "tfidf" in shown["concept"]._repr_html_()
    assert "2 checkpoints audited, nothing found" in shown["lineage"]._repr_html_()
    assert "planted" in run._repr_html_()


BAD: dict[str, tuple[Callable[[Any], object], str]] = {
    "no such site": (lambda m: on.capture(m, ["a text"], sites="resid.9"), "resid.9"),
    "no such part": (lambda m: on.capture(m, ["a text"], sites="residual"), "must begin with one of resid"),
    "no labels": (lambda m: on.fit_probe(on.capture(m, ["a text", "b"])), "activations must have labels"),
    "a frame without labels": (
        lambda m: on.capture(m, pd.DataFrame({"text": ["a", "b"]})),
        "the data frame has no column 'label'",
    ),
    "an empty text": (lambda m: on.capture(m, ["a", " "]), "`texts` must be a concept or a list of texts"),
    "no concept": (lambda m: on.load_concept(3), "a concept must be a name, a file, a data frame"),  # type: ignore[arg-type]
    "a misspelt concept": (lambda m: on.load_concept("truth_citie"), "did you mean truth_cities"),
    "a misspelt probe": (lambda m: on.fit_probe(_two(m), "mas_mean"), "did you mean mass_mean"),
    "a probe for numbers": (lambda m: on.fit_probe(_two(m), "ridge"), "`method` must take a target of the kind binary"),
    "uneven pairs": (lambda m: on.Concept.from_pairs(["a"], []), "`positive` and `negative` must hold the two texts"),
    "a misspelt dtype": (lambda m: on.load_model(Path(m.network.name_or_path), dtype="bf16"), "did you mean bfloat16"),
    "two dtypes": (
        lambda m: on.trace(
            "x", "y", settings=on.TraceSettings(dtype="float16"), model=on.ModelOptions(dtype="bfloat16")
        ),
        "`dtype` must be the same in `model` and `settings`",
    ),
    "no run": (lambda m: on.open_run("nowhere"), "is not a run directory"),
    "an unread site": (lambda m: on.fit_probe(_two(m)).direction("mlp.1"), "the site mlp.1 was not read, only resid.0"),
    "an unknown metric": (lambda m: on.fit_probe(_two(m)).score(_two(m), "f1"), "`metric` must be auroc or accuracy"),
}


def _two(model: on.Model) -> on.Activations:
    texts = [f"{word} {i}" for i in range(10) for word in ("good", "bad")]
    return on.capture(model, on.Concept.from_pairs(texts[::2], texts[1::2]))


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_with_python_words(case: str, model: on.Model) -> None:
    act, says = BAD[case]
    with pytest.raises(on.BadInput, match=re.escape(says)) as error:
        act(model)
    text = str(error.value)
    assert "\n" not in text
    assert " --" not in text


def test_a_missing_step_names_the_steps_there_are(home: Path) -> None:
    with pytest.raises(on.BadInput, match=r"`step` must be one of .*, got 2000: it has 1000, 3000"):
        on.load_model(home / "sft", step=2000)
    assert plugins.list_plugins("probes") == on.list_plugins("probes")


BLOCK = """
model = on.load_model("EleutherAI/pythia-160m", step=3000)
truth = on.load_concept("truth_cities")
acts = on.capture(model, truth, sites="resid")
probe = on.fit_probe(acts, "mass_mean")
with on.steer(model, on.Add(probe.direction("resid.6"), alpha=4)):
    model.generate("The city of Lodz is in")
run = on.trace("runs/sft", ["truth_cities", my_frame], model=on.ModelOptions(device="cpu", dtype="bfloat16"))
run.records(metric="auroc", control=None)
run.show("emergence")
run.direction("truth_cities")
"""


def test_the_lines_of_the_review_run_as_written(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On folders with the names of the repository and of the run; with fewer examples of the concept."""
    from ontogeny.concepts import truth_cities

    whole = truth_cities.concept
    monkeypatch.setenv("ONTOGENY_DATA", str(shared))
    monkeypatch.setattr(truth_cities, "concept", lambda seed=0: whole(seed).limited(40))
    for step in (1, 2):
        save_tiny("gpt_neox", tmp_path / f"runs/sft/checkpoint-{step}", seed=step)
    monkeypatch.setitem(SHAPES, "gpt_neox", SHAPES["gpt_neox"] | {"num_hidden_layers": 7})
    save_tiny("gpt_neox", tmp_path / "EleutherAI/pythia-160m/step3000")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"on": on, "my_frame": pd.DataFrame(rows(characters=12))[["text", "label", "group"]]}
    exec(BLOCK, names)
    assert names["run"].about["settings"]["dtype"] == "bfloat16"
    assert set(names["run"].records(metric="auroc")["concept"]) == {"truth_cities", "frame"}
