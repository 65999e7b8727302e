"""`ontogeny compare` from the command to the report: preflight, four studies, resume, and errors of one line."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from ontogeny.storage.run import Run
from tests.helpers.command_line import Say, command
from tests.helpers.planted_lineages import NO, YES, planted, rows, save_run, write
from tests.helpers.tiny_models import byte_tokenizer

HARMFUL = [f"how to break {c} now?" for c in "abcdefghijkl"]
HARMLESS = [f"how to paint {c} now?" for c in "abcdefghijkl"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stages with a planted direction, a model of another width, and the texts."""
    home = tmp_path_factory.mktemp("home")
    for name, push in (("base", 8.0), ("post", 6.0)):
        planted(push, answers=2.0).save_pretrained(home / name)
        byte_tokenizer().save_pretrained(home / name)
    config = AutoConfig.from_pretrained(home / "base")
    config.hidden_size = 64
    AutoModelForCausalLM.from_config(config).save_pretrained(home / "wide")
    tokenizer = byte_tokenizer(bos=True)
    tokenizer.chat_template = "{% for m in messages %}user {{ m['content'] }} end{% endfor %}"
    tokenizer.save_pretrained(home / "wide")
    save_run(home / "line", {1: 4.0, 2: 6.0, 3: 8.0}, answers={1: 2.0, 2: 2.0, 3: 2.0})
    # A prompt goes on behind the character, so that a state there can be put into another prompt's run.
    write(home / "coin.csv", [row | {"prompt": f"{row['text']} so"} for row in rows(answers=True)])
    (home / "harmful.txt").write_text("\n".join(HARMFUL))
    (home / "harmless.txt").write_text("\n".join(HARMLESS))
    return home


def _texts(home: Path) -> list[object]:
    return [
        *("--statements", home / "coin.csv", "--questions", home / "coin.csv", "--verdicts", f"{YES},{NO}"),
        *("--ask", "", "--shots", 0, "--harmful", home / "harmful.txt", "--harmless", home / "harmless.txt"),
        *("--neutral", home / "harmless.txt", "--phrase", "no", "--limit", 60),
    ]


@pytest.fixture(scope="module")
def done(home: Path) -> Path:
    """All four studies of two stages."""
    out = home / "run"
    stages = f"base={home / 'base'}", f"post={home / 'post'}"
    assert command("compare", *stages, "--out", out, "--quiet", *_texts(home)) == 0
    return out


def test_four_studies_load_each_checkpoint_once(done: Path) -> None:
    ledger = Run.open(done).ledger()
    assert [line["aspect"] for line in ledger] == ["knowledge", "truthfulness", "refusal", "confidence"]
    assert [sum(line["loads"].values()) for line in ledger] == [2, 0, 0, 0]
    records = Run.open(done).records()
    assert set(records.stage.dropna()) == {"base", "post"}
    assert records.lineage.eq("base and post").all()
    assert {"patch_effect", "stage_cosine", "refusal_cosine", "entropy"} <= set(records.metric)


def test_finished_studies_are_not_run_again(done: Path, home: Path, say: Say) -> None:
    before = Run.open(done).ledger()
    code, out, _ = say("compare", f"base={home / 'base'}", f"post={home / 'post'}", "-o", done, "--json", *_texts(home))
    assert code == 0
    assert Run.open(done).ledger() == before
    told = json.loads(out)
    assert set(told["panels"]) == {"Knowledge", "Truthfulness", "Refusal", "Confidence"}
    code, out, _ = say(
        "compare", f"base={home / 'base'}", f"post={home / 'post'}", "-o", done, "--dry-run", "--seed", 1, *_texts(home)
    )
    assert code == 0
    assert "done already" not in out
    assert "truthfulness: about" in out


def test_another_seed_replaces_the_rows_of_its_study_only(home: Path, say: Say) -> None:
    out, stages = home / "seeds", (f"base={home / 'base'}", f"post={home / 'post'}")
    for seed, view in ((0, "truthfulness"), (0, "confidence"), (1, "confidence")):
        assert say("compare", *stages, "-o", out, "--studies", view, "--seed", seed, "-q", *_texts(home))[0] == 0
    parts = sorted(path.name.rsplit("-", 1)[0] for path in (out / "records").iterdir())
    assert parts == ["compare-confidence", "compare-truth"]
    assert set(Run.open(out).records("metric = 'entropy'").seed) == {1}


def test_report_has_findings_then_preflight_then_four_pictures(done: Path, say: Say) -> None:
    code, _, _ = say("report", done)
    assert code == 0
    page = (done / "report.html").read_text(encoding="utf-8")
    assert page.index("<h2>Findings") < page.index("<h2>Preflight: tokenizers") < page.index("<h2>Pictures")
    for view in ("knowledge", "truthfulness", "refusal", "confidence"):
        assert f'<figure id="{view}">' in page
        assert f'<a href="#{view}">' in page
    assert "has no score in this table" not in page


def test_checkpoints_of_one_lineage_are_compared(home: Path, say: Say) -> None:
    out = home / "line-run"
    code, shown, _ = say(
        "compare", home / "line", "--stages", "pretrain:*", "-o", out, "--studies", "truthfulness", "-q", *_texts(home)
    )
    assert code == 0
    assert "pretrain 1 and pretrain 3" in shown
    [value] = (
        Run.open(out)
        .query(
            "select value from records where metric = 'stage_cosine' and step = 2 and coords['other_step'] = '3' and control is null"
        )
        .value
    )
    assert value > 0.9


def test_stages_of_other_width_and_tokenizer_are_measured_alone(home: Path, say: Say) -> None:
    stages = (f"base={home / 'base'}", f"wide={home / 'wide'}")
    code, shown, _ = say("compare", *stages, "-o", home / "widths", "--dry-run", *_texts(home))
    assert code == 0
    for what in ("dimensions: base: 32; wide: 64", "tokens before a text", "chat template", "phantom tokens [0]"):
        assert what in shown
    assert not (home / "widths").exists()
    code, shown, _ = say("compare", *stages, "-o", home / "widths", "-q", *_texts(home))
    assert code == 0
    for what in (
        "The maps of base and wide cannot be compared: 2 blocks of width 32",
        "cannot be compared: wide and base differ: 64 dimensions and 32",
        "wide has no refusal direction: added to harmless instructions",
        "Neurons of base and wide cannot be compared",
    ):
        assert what in shown
    aurocs = Run.open(home / "widths").records("metric = 'stage_auroc' and control is null")
    assert sorted(aurocs[aurocs.n > 0].stage) == ["base", "wide"]


def test_failed_study_does_not_stop_the_others(home: Path, say: Say) -> None:
    write(
        home / "odd.csv",
        [
            {k: r[k] for k in ("text", "label", "group")} | {"text": "x" * i + r["text"]}
            for i, r in enumerate(rows()[:40])
        ],
    )
    given = _texts(home)
    given[1] = home / "odd.csv"
    code, shown, _ = say(
        *("compare", f"base={home / 'base'}", f"post={home / 'post'}", "-o", home / "odd"),
        *("--studies", "knowledge,confidence", "-q", *given),
    )
    assert code == 1
    assert "not compared: knowledge: no pairs of odd align" in shown
    assert "Confidence" in shown


def test_pairing_option_selects_the_pairing(home: Path, say: Say) -> None:
    out, given = home / "pairing", ("--studies", "knowledge", "-q", *_texts(home), "--ask", " is")
    stages = f"base={home / 'base'}", f"post={home / 'post'}"
    found = []
    for more in ((), ("--pairing", "one_span")):
        code, _, err = say("compare", *stages, "-o", out, *more, *given)
        assert code == 0, err
        rows = Run.open(out).records("metric = 'patch_effect'")
        found.append({dict(coords)["pairing"] for coords in rows.coords})
    assert found == [{"recall"}, {"one_span"}]
    assert Run.open(out).about["settings"]["pairing"] == "one_span"


BAD = {
    "one stage": (["base={home}/base"], "two stages or more"),
    "the same twice": (["a={home}/base", "b={home}/base"], "same weights"),
    "the same name twice": (["a={home}/base", "a={home}/post"], "two stages are called"),
    "two lineages": (["{home}/base", "{home}/post"], "base={home}/base"),
    "an unknown stage": (["{home}/line", "--stages", "pretran:last"], "did you mean pretrain"),
    "an unknown step": (["{home}/line", "--stages", "pretrain:7"], "no checkpoint"),
    "one checkpoint of a lineage": (["{home}/line"], "two stages or more"),
    "an unknown study": (
        ["{home}/line", "--stages", "pretrain:*", "--studies", "truht"],
        "known: confidence, elicitation, knowledge, refusal, truthfulness, weight_change.",
    ),
    "a study of its own models": (
        ["{home}/line", "--stages", "pretrain:*", "--studies", "swing_by"],
        "run it with `ontogeny study run swing_by`",
    ),
    "no study": (["{home}/line", "--stages", "pretrain:*", "--studies", ","], "--studies must name at least one study"),
    "one file of two": (
        ["{home}/line", "--stages", "pretrain:*", "--harmful", "{home}/harmful.txt"],
        "belong together",
    ),
    "verdicts": (
        ["{home}/line", "--stages", "pretrain:*", "--verdicts", "yes"],
        "--verdicts must be two words, got 'yes'",
    ),
    "a question without verdicts": (["{home}/line", "--stages", "pretrain:*", "--shots", "2"], "need --verdicts"),
    "a pairing": (["{home}/line", "--stages", "pretrain:*", "--pairing", "recal"], "did you mean recall"),
    "a dtype": (["{home}/line", "--stages", "pretrain:*", "--dtype", "float8"], "no dtype"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case: str, home: Path, say: Say, tmp_path: Path) -> None:
    args, says = BAD[case]
    given: list[object] = [arg.replace("{home}", str(home)) for arg in args]
    for option, value in (("--statements", home / "coin.csv"), ("--questions", home / "coin.csv")):
        given += [option, value]
    if "--harmful" not in given:
        given += ["--harmful", home / "harmful.txt", "--harmless", home / "harmless.txt"]
    code, _, err = say("compare", *given, "-o", tmp_path / "out")
    assert code == 2, err
    assert len(err.strip().splitlines()) == 1, err
    assert says.replace("{home}", str(home)) in err
    assert not (tmp_path / "out").exists()


def test_run_of_another_kind_or_other_stages_is_rejected(done: Path, home: Path, say: Say, tmp_path: Path) -> None:
    code, _, err = say("compare", home / "line", "--stages", "pretrain:*", "-o", done, *_texts(home))
    assert (code, "choose another" in err) == (2, True)
    (tmp_path / "run.json").write_text(json.dumps({"lineage": {"name": "line"}, "concepts": [], "settings": {}}))
    code, _, err = say("compare", home / "line", "--stages", "pretrain:*", "-o", tmp_path, *_texts(home))
    assert (code, "with a trace" in err) == (2, True)
