"""Hostile inputs: what is broken, huge, nested, foreign or malicious ends in one line of ours, and nothing is read or written outside."""

import contextlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ontogeny import Concept, Lineage, cli
from ontogeny.errors import BadInput
from ontogeny.lab.audit import audit
from ontogeny.lab.settings import Settings
from ontogeny.lab.trace import trace
from ontogeny.lineage import Checkpoint, Stage, files, manifest, reading
from ontogeny.lineage.hub import looks_like_repository
from ontogeny.run import Run
from ontogeny.store import read_header, read_tensors
from ontogeny.weights import places
from tests.flows.lineages import planted, rows, write
from tests.models import byte_tokenizer

FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
DEEP = "[" * 100_000
"""JSON and TOML that is nested deeper than a reader's stack."""
SECRET = "hf_doNotWriteMeAnywhere0123456789"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good model, a good concept file and a finished run, traced with a token in the environment."""
    folder = tmp_path_factory.mktemp("good")
    planted(4.0).save_pretrained(folder / "model")
    byte_tokenizer().save_pretrained(folder / "model")
    write(folder / "planted.csv", rows(characters=30))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"):
            patch.setenv(name, SECRET)
        quick = Settings(sites="resid", resamples=100, permutations=100, fits=("mass_mean",))
        lineage = Lineage.open(folder / "model")
        trace(lineage, [Concept.from_file(folder / "planted.csv")], folder / "run", quick)
    return folder


@pytest.fixture
def place(home: Path, tmp_path: Path) -> Path:
    """A copy of all that, to damage."""
    return Path(shutil.copytree(home, tmp_path / "place"))


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *argv: object) -> tuple[int, str]:
    """Run a command in this process: exit code and standard error."""
    monkeypatch.setattr(sys, "argv", ["ontogeny", *map(str, argv)])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    return code, capsys.readouterr().err


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- run directories ------------------------------------------------------------------------------------------------------


def about(change: Callable[[Path], None]) -> Callable[[Path], list[object]]:
    def make(place: Path) -> list[object]:
        change(place / "run" / "run.json")
        return ["report", place / "run"]

    return make


def part(content: bytes) -> Callable[[Path], list[object]]:
    def make(place: Path) -> list[object]:
        (place / "run" / "records" / "evil.parquet").write_bytes(content)
        return ["query", place / "run", "select 1 from records"]

    return make


def query(sql: str) -> Callable[[Path], list[object]]:
    return lambda place: ["query", place / "run", sql]


def traced(change: Callable[[Path], None], *more: object) -> Callable[[Path], list[object]]:
    """A trace of the model after a change to its folder."""

    def make(place: Path) -> list[object]:
        change(place / "model")
        return ["trace", place / "model", "-c", place / "planted.csv", "-o", place / "out", *more]

    return make


def lineage(content: str) -> Callable[[Path], list[object]]:
    def make(place: Path) -> list[object]:
        (place / "lineage.toml").write_text(content, encoding="utf-8")
        return ["trace", place / "lineage.toml", "-c", place / "planted.csv", "-o", place / "out"]

    return make


def concept(content: str | bytes, name: str = "bad.csv") -> Callable[[Path], list[object]]:
    def make(place: Path) -> list[object]:
        (place / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return ["trace", place / "model", "-c", place / name, "-o", place / "out"]

    return make


def header(table: object) -> bytes:
    told = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(told)) + told


def weights(content: bytes) -> Callable[[Path], list[object]]:
    return traced(lambda model: (model / "model.safetensors").write_bytes(content) and None)


def config(**change: object) -> Callable[[Path], list[object]]:
    def edit(model: Path) -> None:
        told = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(told | change))

    return traced(edit)


def elsewhere(model: Path) -> None:
    """An index that names a shard in another folder."""
    shutil.move(model / "model.safetensors", model.parent / "outside.safetensors")
    (model / files.INDEX).write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))


def pickled(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")


def with_code(model: Path) -> None:
    """A config that asks for code of its own."""
    told = json.loads((model / "config.json").read_text())
    told |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (model / "config.json").write_text(json.dumps(told))
    (model / "evil.py").write_text("open('pwned', 'w').write('x')\nclass Config: ...\nclass Model: ...\n")


STAGE = '[[stages]]\nname = "a"\nsource = '
CASES: dict[str, tuple[Callable[[Path], list[object]], str]] = {
    # run directories
    "no run": (lambda p: ["report", p / "model"], r"is no run directory"),
    "run.json torn": (about(lambda f: f.write_text(f.read_text()[:50]) and None), r"run\.json cannot be read"),
    "run.json empty": (about(lambda f: f.write_text("") and None), r"run\.json cannot be read"),
    "run.json a list": (about(lambda f: f.write_text("[1]") and None), r"run\.json cannot be read"),
    "run.json binary": (about(lambda f: f.write_bytes(b"\xff\xfe\x00") and None), r"run\.json cannot be read"),
    "run.json nested": (about(lambda f: f.write_text(DEEP) and None), r"run\.json cannot be read"),
    "a part of nothing": (part(b""), r"records cannot be read.*evil"),
    "a part of noise": (part(os.urandom(64)), r"records cannot be read.*evil"),
    "a part cut off": (part(b"PAR1" + b"\0" * 40), r"records cannot be read.*evil"),
    "no SQL": (lambda p: ["query", p / "run"], r"a query needs a run directory and SQL"),
    "wrong SQL": (query("selec 1"), r"the query cannot be run"),
    "no such column": (query("select colour from records"), r"the query cannot be run"),
    "no such format": (lambda p: ["query", p / "run", "select 1", "-f", "xml"], r"no format 'xml'"),
    "a run twice": (lambda p: ["query", p / "run", p / "run", "select 1"], r"given twice"),
    "view": (lambda p: ["show", p / "run", "emergense"], r"did you mean emergence"),
    "view up": (lambda p: ["show", p / "run", "../../evil"], r"no view called '\.\./\.\./evil'"),
    "picture ending": (lambda p: ["show", p / "run", "emergence", "-o", p / "a.exe"], r"\.exe"),
    "report on a folder": (lambda p: ["report", p / "run", "-o", p / "model"], r"cannot write"),
    "no view": (lambda p: ["show", p / "run"], r"a picture needs a run directory and a view"),
    # lineage files
    "toml torn": (lineage("[[stages"), r"lineage\.toml cannot be read"),
    "toml nested": (lineage("a = " + DEEP), r"lineage\.toml cannot be read"),
    "toml empty": (lineage(""), r"states no stages"),
    "toml other key": (lineage('stagse = 1\n[[stages]]\nname="a"'), r"no key called 'stagse'; did you mean stages"),
    "toml number": (lineage("[[stages]]\nname = 1\nsource = 'model'"), r"name must be a text, not 1"),
    "toml bool": (lineage(STAGE + '"model"\ntrain_seed = true'), r"train_seed must be a whole number"),
    "toml no source": (lineage('[[stages]]\nname = "a"'), r"stage 1 has no source"),
    "toml own parent": (lineage(STAGE + '"model"\nparent = "a"'), r"parent|circle|stage"),
    "toml nobody's parent": (lineage(STAGE + '"model"\nparent = "zz"'), r"zz"),
    "toml twice": (lineage(f'{STAGE}"model"\n{STAGE}"model"'), r"has a stage 'a' already"),
    "toml secret file": (lineage(STAGE + '"/etc/passwd"'), r"passwd is a file"),
    "toml up": (lineage(STAGE + '"../../../../../../no/such"'), r"no folder|no/such"),
    "toml url": (lineage(STAGE + '"file:///etc/passwd"'), r"there is no folder"),
    "toml steps": (lineage(STAGE + '"model"\nsteps = "all-1"'), r"steps|selects"),
    "toml zero": (lineage(STAGE + '"mod\\u0000el"'), r"."),
    # hub names
    "hub up": (lambda p: ["trace", "../../etc", "-c", p / "planted.csv", "-o", p / "out"], r"no folder|holds no model"),
    "hub dashes": (lambda p: ["trace", "a--b/c", "-c", p / "planted.csv", "-o", p / "out"], r"there is no folder"),
    "hub spaces": (lambda p: ["trace", "a b/c", "-c", p / "planted.csv", "-o", p / "out"], r"there is no folder"),
    "hub query": (lambda p: ["trace", "a/b?x=1", "-c", p / "planted.csv", "-o", p / "out"], r"there is no folder"),
    "hub three": (lambda p: ["trace", "a/b/c", "-c", p / "planted.csv", "-o", p / "out"], r"there is no folder"),
    # checkpoints
    "weights empty": (weights(b""), r"cut off or no safetensors file"),
    "weights git-lfs": (weights(b"version https://git-lfs.github.com/spec/v1\n"), r"git-lfs pointer"),
    "header huge": (weights(struct.pack("<Q", 2**63) + b"{}"), r"cut off or no safetensors file"),
    "header a list": (weights(header([1, 2])), r"unreadable header"),
    "header nested": (weights(header(DEEP.encode())), r"unreadable header"),
    "header not text": (weights(header(b"\xff" * 16)), r"unreadable header"),
    "header no offsets": (weights(header({"a": {"dtype": "F32", "shape": [1]}})), r"unreadable header"),
    "header no dtype": (
        weights(header({"a": {"shape": [1], "data_offsets": [0, 4]}}) + b"\0" * 4),
        r"unreadable header",
    ),
    "header backwards": (
        weights(header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}})),
        r"unreadable header",
    ),
    "header before the file": (
        weights(header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [-4, 4]}}) + b"\0" * 4),
        r"unreadable header",
    ),
    "header endless": (
        weights(header(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e999]}}')),
        r"unreadable header",
    ),
    "header texts": (
        weights(header({"a": {"dtype": "F32", "shape": "1", "data_offsets": ["0", "4"]}})),
        r"unreadable header",
    ),
    "header shorter than its shape": (
        weights(header({"a": {"dtype": "F32", "shape": [9, 9], "data_offsets": [0, 4]}}) + b"\0" * 4),
        r"weights of .* cannot be read|lack",
    ),
    "a shard elsewhere": (traced(elsewhere), r"lacks 1 of its 1 weight shards, first \.\./outside"),
    "index nested": (
        traced(lambda m: (m / "model.safetensors").rename(m / "x.bin") and (m / files.INDEX).write_text(DEEP) and None),
        r"index\.json cannot be read",
    ),
    "index empty": (
        traced(lambda m: (m / "model.safetensors").rename(m / "x.bin") and (m / files.INDEX).write_text("{}") and None),
        r"names no shards",
    ),
    "a pickle": (traced(pickled), r"only as a pickle .* --allow-pickle"),
    "a pickle that calls": (traced(pickled, "--allow-pickle"), r"weights of .* cannot be read"),
    "code beside the weights": (traced(with_code), r"evil|config\.json"),
    "config nested": (traced(lambda m: (m / "config.json").write_text(DEEP) and None), r"config\.json"),
    "config a list": (traced(lambda m: (m / "config.json").write_text("[]") and None), r"holds no JSON object"),
    "config no type": (traced(lambda m: (m / "config.json").write_text("{}") and None), r"config\.json|model type"),
    "config number as type": (config(model_type=7), r"."),
    "config no heads": (config(num_attention_heads=0), r"."),
    "config negative": (config(hidden_size=-8), r"."),
    "config words": (config(num_hidden_layers="many"), r"."),
    "config half heads": (config(num_attention_heads=3), r"."),
    "tokenizer torn": (traced(lambda m: (m / "tokenizer.json").write_text('{"a":') and None), r"no usable tokenizer"),
    "tokenizer nested": (traced(lambda m: (m / "tokenizer.json").write_text(DEEP) and None), r"no usable tokenizer"),
    # concepts
    "jsonl nested": (concept('{"text": ' + DEEP, "bad.jsonl"), r"line 1: no valid JSON"),
    "jsonl list": (concept("[1]\n", "bad.jsonl"), r"not an object"),
    "jsonl text in text": (concept('{"text": {"a": 1}, "label": 1}\n' * 20, "bad.jsonl"), r"text"),
    "jsonl doubled key": (concept('{"text": "a", "text": "b", "label": 1}\n', "bad.jsonl"), r"a key stands twice"),
    "gzip cut": (concept(b"\x1f\x8b\x08\0\0\0", "bad.csv.gz"), r"damaged"),
    "no text": (concept("text,label\n,1\n,0\n"), r"text"),
    "huge cell": (concept("text,label\n" + "a" * 200_000 + ",1\n"), r"field larger than|two classes|groups"),
    "doubled column": (concept("text,text,label\na,b,1\n"), r"text"),
    "spans outside": (concept("text,label,span_start,span_end\n" + "abc,1,5,9\nabd,0,5,9\n" * 10), r"span"),
    "number as infinity": (concept("text,target\n" + "".join(f"t{i},inf\n" for i in range(20))), r"."),
    # arguments
    "position": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", p / "out", "--position", "((("],
        r"\(",
    ),
    "steps": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", p / "out", "--steps", "5..1"],
        r"5\.\.1|steps",
    ),
    "sites": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", p / "out", "--sites", "head.1.99"],
        r"heads are",
    ),
    "sites up": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", p / "out", "--sites", "../x"],
        r"no sites given",
    ),
    "fits up": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", p / "out", "--fits", "../../os"],
        r"no fit called",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_line_and_nothing_else(name: str, place: Path, capsys, monkeypatch) -> None:
    make, expected = CASES[name]
    argv = make(place)
    monkeypatch.chdir(place)
    before, above = listing(place), sorted(place.parent.iterdir())
    code, err = said(capsys, monkeypatch, *argv)
    told = [line for line in err.splitlines() if not re.match(r"\[\d+/\d+\] ", line)]
    assert (code, len(told)) == (2, 1), err
    assert told[0].startswith("ontogeny: ")
    assert re.search(expected, told[0]), told[0]
    assert len(told[0]) < 1000
    assert listing(place) == before
    assert sorted(place.parent.iterdir()) == above


COMMANDS = (
    "run.json nested",
    "a part of noise",
    "view up",
    "toml nested",
    "toml secret file",
    "header backwards",
    "a shard elsewhere",
    "a pickle that calls",
    "code beside the weights",
    "jsonl nested",
)


@pytest.mark.parametrize("name", COMMANDS)
def test_as_a_real_command(name: str, place: Path) -> None:
    make, expected = CASES[name]
    argv = [str(word) for word in make(place)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "from ontogeny.cli import main; main()", *argv],
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_TOKEN": SECRET},
        capture_output=True,
        text=True,
        timeout=120,
    )
    told = [line for line in done.stderr.splitlines() if not re.match(r"\[\d+/\d+\] ", line)]
    assert (done.returncode, len(told)) == (2, 1), done.stderr
    assert re.search(expected, told[0])
    assert SECRET not in done.stdout + done.stderr
    assert not (place / "pwned").exists()


def test_a_good_run_is_the_control(place: Path, capsys, monkeypatch) -> None:
    assert said(capsys, monkeypatch, "report", place / "run")[0] == 0
    assert said(capsys, monkeypatch, "query", place / "run", "select count(*) from records")[0] == 0


def test_no_file_of_a_run_holds_a_secret(home: Path) -> None:
    held = listing(home / "run")
    assert {"run.json", "ledger.jsonl"} <= set(held)
    assert any(name.startswith("records/") for name in held)
    assert not [name for name, content in held.items() if SECRET.encode() in content]
    assert b"planted" in held["run.json"]  # the control: what is in it would be seen


# --- fuzzed readers ---------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "X9", ""]) | JSON,
        "shape": st.lists(st.integers(-2, 9), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-8, 64), max_size=3) | JSON,
    },
)


def only_ours(read: Callable[[], object]) -> None:
    with contextlib.suppress(BadInput):
        read()


def test_a_reader_that_fails_otherwise_is_seen() -> None:
    with pytest.raises(ValueError, match="Expecting"):  # the control
        only_ours(lambda: json.loads("{"))


@given(st.dictionaries(st.text(max_size=4), TENSOR | JSON, max_size=3) | JSON, st.binary(max_size=64))
@FUZZ
def test_header_reader(tmp_path: Path, table: object, data: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(header(table) + data)
    (tmp_path / "config.json").write_text("{}")
    only_ours(lambda: files.header(path))
    only_ours(lambda: places(tmp_path))
    only_ours(lambda: files.check(tmp_path))
    only_ours(lambda: reading.preflight(Lineage.open(tmp_path).checkpoints[0]))


@given(st.binary(max_size=200))
@FUZZ
def test_header_reader_on_noise(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    only_ours(lambda: files.header(tmp_path / "model.safetensors"))


@given(JSON)
@FUZZ
def test_index_and_config_readers(tmp_path: Path, content: object) -> None:
    for name in (files.INDEX, "config.json", "trainer_state.json"):
        (tmp_path / name).write_text(json.dumps(content))
    only_ours(lambda: files.check(tmp_path))
    only_ours(lambda: Lineage.open(tmp_path))


TOML = st.sampled_from(["name", "stages", "source", "steps", "parent", "train_seed", "x"])
VALUE = st.sampled_from(['"a"', "1", "true", "[]", "{}", "1979-05-27", "nan", '"../.."', '""', "'a/b'"])


@given(st.lists(st.one_of(st.just("[[stages]]"), st.builds("{} = {}".format, TOML, VALUE), st.text(max_size=12))))
@FUZZ
def test_lineage_reader(tmp_path: Path, lines: list[str]) -> None:
    path = tmp_path / "lineage.toml"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    only_ours(lambda: manifest.load(path))


CELL = st.text(max_size=12) | st.sampled_from(["0", "1", "true", "", "inf", "nan", '"', "-1", "1e999"])


@given(st.lists(st.lists(CELL, min_size=1, max_size=4), max_size=6), st.sampled_from(["csv", "tsv", "jsonl"]))
@FUZZ
def test_concept_reader(tmp_path: Path, cells: list[list[str]], ending: str) -> None:
    path = tmp_path / f"x.{ending}"
    names = ["text", "label", "group", "span_start"]
    if ending == "jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=False))) for row in cells]
    else:
        lines = [{"csv": ",", "tsv": "\t"}[ending].join(row) for row in [names, *cells]]
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    only_ours(lambda: Concept.from_file(path))


@given(st.binary(max_size=300))
@FUZZ
def test_concept_reader_on_noise(tmp_path: Path, data: bytes) -> None:
    for name in ("x.csv", "x.jsonl", "x.tsv.gz"):
        (tmp_path / name).write_bytes(data)
        only_ours(lambda name=name: Concept.from_file(tmp_path / name))


@given(st.binary(max_size=200), JSON)
@FUZZ
def test_records_reader(tmp_path: Path, data: bytes, content: object) -> None:
    (tmp_path / "records").mkdir(exist_ok=True)
    (tmp_path / "records" / "a.parquet").write_bytes(data)
    (tmp_path / "run.json").write_text(json.dumps(content))
    only_ours(lambda: Run.open(tmp_path))
    only_ours(lambda: Run(tmp_path).records())


@given(st.binary(max_size=200), JSON)
@FUZZ
def test_directions_reader(tmp_path: Path, data: bytes, content: object) -> None:
    path = tmp_path / "a.safetensors"
    for whole in (data, header({"__metadata__": {"ontogeny": json.dumps(content)}}), header({"__metadata__": content})):
        path.write_bytes(whole)
        only_ours(lambda: read_header(path))
        only_ours(lambda: read_tensors(path))


@given(st.dictionaries(st.text(max_size=4), TENSOR | JSON, max_size=2) | JSON, JSON)
@FUZZ
def test_audit_of_a_hostile_folder(tmp_path: Path, table: object, content: object) -> None:
    (tmp_path / "model.safetensors").write_bytes(header(table))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(json.dumps(content))
    only_ours(lambda: audit(Lineage(tmp_path.name, (Stage("a", (Checkpoint(str(tmp_path)),)),))))


@given(st.text(max_size=30))
@FUZZ
def test_a_repository_never_names_a_place_outside_of_the_cache(name: str) -> None:
    if looks_like_repository(name):
        assert not name.startswith((".", "/", "~"))
        assert ".." not in name
        assert name.count("/") <= 1
        assert not re.search(r"[\\\s:?#%\0]", name)
