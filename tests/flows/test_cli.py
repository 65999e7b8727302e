"""Every command as people and scripts use it; help and imports load no heavy package."""

import csv
import io
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ontogeny
from ontogeny import plugins
from ontogeny.cli import app
from ontogeny.lineage.manifest import packaged_manifests
from ontogeny.measurements.settings import TraceSettings
from tests.helpers.planted_lineages import RISE, SPOKEN, rows, save_run, write

HEAVY = ("torch", "transformers", "pandas", "sklearn", "altair", "duckdb")
COMMANDS = tuple(command.name for command in app.registered_commands)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    save_run(home / "rise", RISE, answers=SPOKEN)
    write(home / "planted.csv", rows(answers=True))
    write(home / "[b]odd name.csv", rows(characters=40))
    return home


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    """A finished run, traced from Python as the documentation shows."""
    lineage = ontogeny.Lineage.open(home / "rise")
    concept = ontogeny.Concept.from_file(home / "planted.csv")
    return ontogeny.trace(
        lineage, [concept], home / "run", TraceSettings(sites="resid", resamples=200, permutations=200)
    ).folder


# --- nothing heavy before there is something to do ---------------------------------------------------------------------------


def loaded(code: str) -> set[str]:
    """Heavy packages that a process has loaded after some code."""
    report = f"import sys; print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.strip().splitlines()[-1].replace("'", '"')))


def test_importing_and_help_load_nothing_heavy() -> None:
    ask = (
        "import sys\nfrom ontogeny import cli\nsys.argv = ['ontogeny', {!r}]\ntry: cli.main()\nexcept SystemExit: pass"
    )
    assert loaded("import ontogeny, ontogeny.errors, ontogeny.records, ontogeny.sites, ontogeny.plugins") == set()
    assert loaded(ask.format("--help")) == set()
    # The control: the check sees what is loaded, here by the first use of a name.
    assert {"torch"} <= loaded("import ontogeny; ontogeny.Concept")


def test_help_and_version_as_a_real_command() -> None:
    program = Path(sys.executable).parent / "ontogeny"
    argv = [str(program)] if program.exists() else [sys.executable, "-c", "from ontogeny.cli import main; main()"]
    done = subprocess.run([*argv, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ontogeny {ontogeny.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command: str, say) -> None:
    done = say(command, "--help")
    assert done.code == 0
    assert f"ontogeny {command}" in done.out
    assert done.err == ""
    assert command in say("--help").out


def test_help_shows_brackets(say) -> None:
    assert "'ontogeny[ray]'" in "".join(re.sub(r"[│\s]", "", line) for line in say("trace", "--help").out.splitlines())


def test_unknown_option_or_command_is_exit_2(say) -> None:
    for args in (("trace",), ("trace", "x", "--no-such"), ("paint",), ("list", "--format", "x")):
        done = say(*args)
        assert done.code == 2
        assert "Traceback" not in done.err


# --- trace -------------------------------------------------------------------------------------------------------------------


def test_dry_run_prints_the_plan_and_writes_nothing(home: Path, tmp_path: Path, say) -> None:
    args = ("trace", home / "rise", "-c", home / "planted.csv", "-o", tmp_path / "out", "--sites", "resid", "--dry-run")
    shown = say(*args)
    assert shown.code == 0
    for words in ("8 checkpoints: ", "; 8 to visit", "planted (", "examples)", "forwards", "disk"):
        assert words in shown.out
    plan = json.loads(say(*args, "--json").out)
    texts = len(
        {t for r in rows(answers=True) for t in (r["text"], r["prompt"] + r["right"], r["prompt"] + r["wrong"])}
    )
    assert plan["texts"] == texts
    assert plan["forwards"] == texts * 9  # eight checkpoints and the untrained floor
    assert plan["tokens_exact"]
    assert plan["bytes_to_download"] == 0
    assert plan["bytes_to_read"] == 8 * (home / "rise" / "checkpoint-1" / "model.safetensors").stat().st_size
    assert list(tmp_path.iterdir()) == []


def test_trace_prints_a_summary_and_json_parses(home: Path, tmp_path: Path, say) -> None:
    args = ("trace", home / "rise", "-c", home / "planted.csv", "--sites", "resid", "-o", tmp_path / "my [b] run")
    text = say(*args)
    assert text.code == 0, text.err
    assert "planted" in text.out
    assert str(tmp_path / "my [b] run") in text.out.replace("\n", "")
    assert [line.partition(" (")[0] for line in text.err.splitlines()] == [
        "[0/8] untrained floor reading",
        *(f"[{done}/8] pretrain {2**done} loading" for done in range(8)),
        "[0/2] relating checkpoints: planted",
        "[1/2] relating checkpoints: all concepts",
    ]
    done = say(*args, "--json")
    assert done.code == 0
    assert done.err == ""
    told = json.loads(done.out)
    assert told["lineage"] == "rise"
    assert told["failures"] == []
    scores = {s["metric"]: s for s in told["scores"] if s["method"] == "logistic"}
    assert scores["auroc"]["step"] == 128
    assert scores["auroc"]["value"] > 0.95
    [emerged] = [
        e
        for e in told["events"]
        if (e["metric"], e.get("method"), e["coords"].get("form")) == ("emergence_step", "logistic", "half")
    ]
    assert 8 < emerged["value"] <= 16
    assert set(told["warnings"]) == {"planted"}
    plan = json.loads(say(*args, "--dry-run", "--json").out)
    assert (plan["checkpoints_to_visit"], plan["forwards"], plan["seconds"]) == (0, 0, 0)


def test_options_of_trace_reach_the_job(home: Path, tmp_path: Path, say) -> None:
    done = say(
        *("trace", home / "rise", "-c", home / "[b]odd name.csv", "-o", tmp_path / "out", "--quiet"),
        *(
            "--steps",
            "1,128",
            "--sites",
            "resid.1,mlp.2",
            "--probes",
            "mass_mean",
            "--limit",
            "60",
            "--position",
            "mean",
        ),
        *("--seed", "3", "--no-untrained", "--dtype", "bfloat16", "--protocol", "paper", "--truncate"),
    )
    assert done.code == 0, done.err
    assert done.err == ""
    opened = ontogeny.Run.open(tmp_path / "out")
    found = opened.records("metric = 'auroc' and control is null and stage is not null")
    assert set(found.site) == {"resid.1", "mlp.2"}
    assert set(found.method) == {"logistic", "mass_mean"}  # the probe is always there
    assert set(found.step) == {1, 128}
    assert set(found.position) == {"mean"}
    assert set(found.seed) == {3}
    settings = opened.about["settings"]
    assert settings == settings | {
        "protocol": "paper",
        "dtype": "bfloat16",
        "truncate": True,
        "untrained": False,
        "seed": 3,
        "fits": ["mass_mean"],
    }
    [concept] = opened.about["concepts"]
    assert (concept["name"], concept["n"]) == ("[b]odd name", 60)
    assert opened.about["command"].startswith("ontogeny trace ")
    assert "'" + str(home / "[b]odd name.csv") + "'" in opened.about["command"]


def test_single_model_has_scores_in_json(home: Path, tmp_path: Path, say, tiny) -> None:
    args = ("trace", tiny("gpt_neox"), "-c", home / "[b]odd name.csv", "-o", tmp_path / "out", "--sites", "resid")
    text = say(*args)
    assert text.code == 0, text.err
    assert "[b]odd name" in text.out
    told = json.loads(say(*args, "--json").out)
    assert {s["metric"] for s in told["scores"]} == {"auroc", "accuracy"}
    assert all(s["step"] is None for s in told["scores"])


# --- what a run can be asked ---------------------------------------------------------------------------------------------------


def test_report(run: Path, tmp_path: Path, say, request: pytest.FixtureRequest) -> None:
    done = say("report", run)
    assert (done.code, done.err) == (0, "")
    assert Path(done.out.strip()) == run / "report.html"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "planted" in page
    assert 'src="http' not in page
    request.getfixturevalue("one_view")
    other = say("report", run, "-o", tmp_path / "deep" / "page.html")
    assert other.code == 0
    assert (tmp_path / "deep" / "page.html").stat().st_size > 10_000


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<svg"), ("html", b"<"), ("json", b"{")])
def test_show(ending: str, start: bytes, run: Path, tmp_path: Path, say) -> None:
    target = tmp_path / f"emergence.{ending}"
    done = say("show", run, "emergence", "--out", target)
    assert (done.code, done.err) == (0, "")
    assert done.out.strip() == str(target)
    content = target.read_bytes()
    assert content.lstrip().startswith(start)
    assert len(content) > 5000
    if ending == "json":
        assert "vega" in json.loads(content)["$schema"]


def test_show_draws_every_view_that_has_rows_and_says_what_others_lack(run: Path, tmp_path: Path, say) -> None:
    drawn = set()
    for view in plugins.list_plugins("views"):
        target = tmp_path / f"{view}.json"
        done = say("show", run, view, "--out", target)
        if done.code == 0:
            drawn.add(view)
            assert json.loads(target.read_text(encoding="utf-8"))["$schema"]
        else:
            assert done.code == 1, done.err
            assert done.err.startswith(f"ontogeny: the view {view} has nothing to draw: "), done.err
            assert not target.exists()
    by_concept = {"concepts", "emergence", "layers", "readable_used", "surface"}
    assert drawn == by_concept | {"dependence", "drift", "spectrum", "fragility", "examples", "probe_errors"}


SQL = "select step, site, value from records where metric = 'auroc' and method = 'logistic' and control is null order by step, site"


def test_query_formats(run: Path, say) -> None:
    table = list(csv.DictReader(io.StringIO(say("query", run, SQL, "--format", "csv").out)))
    assert len(table) == 8 * 3
    assert list(table[0]) == ["step", "site", "value"]
    rows = json.loads(say("query", run, SQL, "--format", "json").out)
    assert [(str(r["step"]), r["site"]) for r in rows] == [(r["step"], r["site"]) for r in table]
    assert [r["value"] for r in rows] == pytest.approx([float(r["value"]) for r in table])
    assert json.loads(say("query", run, SQL, "--json").out) == rows
    lines = say("query", run, SQL, "-f", "markdown").out.splitlines()
    assert lines[:2] == ["| step | site | value |", "|---|---|---|"]
    assert len(lines) == 2 + 24
    shown = say("query", run, SQL)
    assert "resid.2" in shown.out
    assert "24 rows" in shown.err


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_missing_values_are_empty_cells_and_names_are_not_markup(run: Path, say, form: str) -> None:
    sql = "select 143000.0::double as step, null as nothing, 'nan'::double as low, .123456 as value, '[red]a|b' as name, null::int as n"
    head, *_, line = say("query", run, sql, "-f", form).out.splitlines()
    if form == "markdown":
        cells = [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")]
    else:  # a cell begins below its name
        starts = [column.start() for column in re.finditer(r"\S+", head)]
        cells = [line[start:end].strip() for start, end in itertools.pairwise([*starts, None])]
    assert cells == ["143000", "", "", "0.1235", "[red]a/b" if form == "markdown" else "[red]a|b", ""]


def test_query_over_two_runs(run: Path, home: Path, tmp_path: Path, say) -> None:
    lineage = ontogeny.Lineage.open(home / "rise").select("1,128")
    concept = ontogeny.Concept.from_file(home / "planted.csv")
    ontogeny.trace(
        lineage, [concept], tmp_path / "second", TraceSettings(sites="resid.1", resamples=100, permutations=100)
    )
    sql = "select run, count(distinct step) as steps from records group by run order by run"
    assert say("query", run, tmp_path / "second", sql, "-f", "csv").out.split() == ["run,steps", "run,8", "second,2"]


@pytest.mark.parametrize("folder", plugins.PLUGIN_FOLDERS)
def test_list(folder: str, say) -> None:
    done = say("list", folder)
    assert (done.code, done.err) == (0, "")
    assert all(name in done.out for name in plugins.list_plugins(folder))
    found = json.loads(say("list", folder, "--json").out)
    assert set(found[folder]) == set(plugins.list_plugins(folder))
    assert all(found[folder].values()), "a plug-in has no summary"


def test_list_of_all(say) -> None:
    found = json.loads(say("list", "--json").out)
    assert set(found) == {*plugins.PLUGIN_FOLDERS, "public runs, opened by name"}
    assert found["public runs, opened by name"].keys() == packaged_manifests().keys()


BAD = {
    "query without sql": (["query", "{run}"], "a query needs a run directory and SQL. For example"),
    "query of nothing": (
        ["query", "{nowhere}", "select 1"],
        "is not a run directory .* make one with `ontogeny trace`",
    ),
    "bad sql": (
        ["query", "{run}", "select stp from records"],
        'cannot be run: .*"stp".*columns are in docs/records.md',
    ),
    "no sql": (["query", "{run}", "delete everything"], "the query cannot be run"),
    "format": (
        ["query", "{run}", "select 1", "-f", "xml"],
        "--format must be one of table, csv, json, markdown, got 'xml'",
    ),
    "view": (["show", "{run}", "emergance"], "no view called 'emergance'; did you mean emergence"),
    "ending": (["show", "{run}", "emergence", "-o", "{nowhere}.gif"], "the name of a chart must end with .png"),
    "show into a file": (
        ["show", "{run}", "emergence", "-o", "{file}/x.png"],
        "cannot write .*a part of the path is a file",
    ),
    "show onto a folder": (["show", "{run}", "emergence", "-o", "{folder}.json"], "cannot write .*it is a folder"),
    "show of nothing": (["show", "{nowhere}", "emergence"], "is not a run directory"),
    "report of nothing": (["report", "{nowhere}"], "is not a run directory"),
    "report of a file": (["report", "{file}"], "is not a run directory"),
    "report into a file": (["report", "{run}", "-o", "{file}/x.html"], "cannot write .*a part of the path is a file"),
    "damaged run.json": (["report", "{damaged}"], "run.json cannot be read .*restore it, or trace into another folder"),
    "damaged part": (
        ["query", "{torn}", "select count(*) from records"],
        "records cannot be read .*part.parquet.*remove the part",
    ),
    "folder": (["list", "probe"], "no plug-in folder called 'probe'; did you mean probes"),
}


@pytest.mark.usefixtures("one_view")
@pytest.mark.parametrize(("args", "expected"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line(args, expected, run: Path, tmp_path: Path, say) -> None:
    import re

    places = {name: tmp_path / name for name in ("nowhere", "file", "folder", "damaged", "torn")}
    places["file"].write_text("a file")
    (tmp_path / "folder.json").mkdir()
    for name in ("damaged", "torn"):
        (places[name] / "records").mkdir(parents=True)
    (places["damaged"] / "run.json").write_text('{"conc')
    (places["torn"] / "run.json").write_text("{}")
    (places["torn"] / "records" / "part.parquet").write_bytes(b"PAR1 cut")
    before = {path for path in tmp_path.rglob("*")}
    done = say(*(arg.format(run=run, **places) for arg in args))
    assert done.code == 2
    assert done.out == ""
    [line] = done.err.splitlines()
    assert line.startswith("ontogeny: ")
    assert re.search(expected, line), line
    assert {path for path in tmp_path.rglob("*")} == before


# --- from Python -----------------------------------------------------------------------------------------------------------------


def test_python(run: Path) -> None:
    opened = ontogeny.Run.open(run)
    frame = opened.records("metric = 'emergence_step' and method = 'logistic'")
    assert 8 < frame.value.iloc[0] <= 16
    chart = opened.show("emergence")
    assert chart.to_dict()
    direction = opened.direction("planted", site="resid.0", step=128)
    assert direction.vector.norm().item() == pytest.approx(1, rel=1e-5)
    assert direction.origin == "planted@checkpoint-128/mass_mean"
    assert str(opened.direction("planted").site) == opened.records("metric = 'best_site'").site.iloc[0]
    assert set(ontogeny.__all__) <= set(dir(ontogeny))


def test_python_errors_name_what_exists(run: Path) -> None:
    opened = ontogeny.Run.open(run)
    for words, arguments in {
        "no traced concept called 'plantd'; did you mean planted": {"concept": "plantd"},
        "was not traced at step 7; known: 1, 2, 4, 8, 16, 32, 64, 128": {"concept": "planted", "step": 7},
        "mlp.1 was not traced; known: resid.0": {"concept": "planted", "site": "mlp.1"},
        "no method in this run called 'massmean'; did you mean mass_mean": {"concept": "planted", "method": "massmean"},
        "no stage called 'sft'; known: pretrain": {"concept": "planted", "stage": "sft"},
        "is not a site": {"concept": "planted", "site": "residual"},
    }.items():
        with pytest.raises(ontogeny.BadInput) as caught:
            opened.direction(**arguments)
        assert words in str(caught.value)
    with pytest.raises(AttributeError, match="has no attribute 'Linage'"):
        ontogeny.Linage  # noqa: B018
