"""Hostile inputs: what is broken, huge, nested, foreign or malicious ends in one line of ours, and nothing is read or written outside."""

import contextlib
import gzip
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ontogeny import Concept, Lineage
from ontogeny.data import tables, templates
from ontogeny.dynamics.measured_checkpoints import measured_checkpoints
from ontogeny.errors import BadInput
from ontogeny.jobs.audit.audit import audit
from ontogeny.jobs.run_json import command_line
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Checkpoint, Stage, fetch, manifest, weight_files
from ontogeny.lineage.hub import looks_like_repository
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models.weight_swap import tensor_locations
from ontogeny.storage import directions
from ontogeny.storage.files import read_tensor_header, read_tensors
from ontogeny.storage.parts import UNIT_HEADER_KEYS
from ontogeny.storage.run import Run
from tests.helpers.command_line import Say, command
from tests.helpers.planted_lineages import planted, rows, write
from tests.helpers.subprocesses import python, started
from tests.helpers.tiny_models import byte_tokenizer
from tests.hostile import CASES
from tests.hostile.making import header

FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
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
        quick = TraceSettings(sites="resid", resamples=100, permutations=100, fits=("mass_mean",))
        lineage = Lineage.open(folder / "model")
        trace(lineage, [Concept.from_file(folder / "planted.csv")], folder / "run", quick)
    return folder


@pytest.fixture
def place(home: Path, tmp_path: Path) -> Path:
    """A copy of all that, to damage."""
    return Path(shutil.copytree(home, tmp_path / "place"))


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", CASES)
def test_one_line_and_nothing_else(name: str, place: Path, say: Say, monkeypatch, request) -> None:
    make, expected = CASES[name]
    argv = make(place)
    monkeypatch.chdir(place)
    monkeypatch.setattr(templates, "RENDER_SECONDS", 0.5)
    if name.startswith("report "):  # its place is wrong, whatever it shows
        request.getfixturevalue("one_view")
    before, above = listing(place), sorted(place.parent.iterdir())
    code, _, err = say(*argv)
    told = [line for line in err.splitlines() if not re.match(r"\[\d+/\d+\] ", line)]
    assert (code, len(told)) == (2, 1), err
    assert told[0].startswith("ontogeny: ")
    assert re.search(expected, told[0]), told[0]
    assert len(told[0]) < 1000
    assert listing(place) == before
    assert sorted(place.parent.iterdir()) == above


STARTED = ("run.json nested", "a part of noise", "view up", "SQL that writes", "concept that never ends")
"""By an interpreter of their own, from its first import on; the others where the libraries are loaded."""
COMMANDS = (
    *STARTED,
    "toml nested",
    "toml secret file",
    "header backwards",
    "a shard elsewhere",
    "a pickle that calls",
    "code beside the weights",
    "jsonl nested",
)


def test_there_are_a_hundred_cases_and_ten_are_real_commands() -> None:
    assert len(CASES) >= 100
    assert len(set(COMMANDS) & set(CASES)) == len(COMMANDS) >= 10


@pytest.mark.parametrize("name", COMMANDS)
def test_as_a_real_command(name: str, place: Path) -> None:
    make, expected = CASES[name]
    argv = [str(word) for word in make(place)]
    how = started if name in STARTED else python
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_TOKEN": SECRET}
    done = how("from ontogeny.cli import main; main()", *argv, env=env, cwd=place)
    told = [line for line in done.stderr.splitlines() if not re.match(r"\[\d+/\d+\] ", line)]
    assert (done.returncode, len(told)) == (2, 1), done.stderr
    assert re.search(expected, told[0])
    assert SECRET not in done.stdout + done.stderr
    assert not (place / "pwned").exists()


def test_a_file_that_unpacks_without_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MAX_FILE_BYTES", 2**20)
    table = b"text,label\n" + b"".join(b"a%d,%d\n" % (i, i % 2) for i in range(40))
    for name, content in (("small.csv.gz", gzip.compress(table)), ("small.csv", table)):
        (tmp_path / name).write_bytes(content)
        assert len(Concept.from_file(tmp_path / name).examples) == 40  # the control
    huge = table + b"b,1\n" * 2**20
    for name, content in (("huge.csv.gz", gzip.compress(huge)), ("huge.csv", huge)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match="must not exceed 1 MiB of text"):
            Concept.from_file(tmp_path / name)


def test_a_good_run_is_the_control(place: Path) -> None:
    assert command("report", place / "run") == 0
    assert command("query", place / "run", "select count(*) from records") == 0


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
    only_ours(lambda: weight_files.read_safetensors_header(path))
    only_ours(lambda: tensor_locations(tmp_path))
    only_ours(lambda: weight_files.check_model_folder(tmp_path))
    only_ours(lambda: fetch.checkpoint_files(Lineage.open(tmp_path).checkpoints[0]))


@given(st.binary(max_size=200))
@FUZZ
def test_header_reader_on_noise(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    only_ours(lambda: weight_files.read_safetensors_header(tmp_path / "model.safetensors"))


@given(JSON)
@FUZZ
def test_index_and_config_readers(tmp_path: Path, content: object) -> None:
    for name in (weight_files.SAFETENSORS_INDEX, "config.json", "trainer_state.json", weight_files.ADAPTER_CONFIG):
        (tmp_path / name).write_text(json.dumps(content))
    only_ours(lambda: weight_files.check_model_folder(tmp_path))
    only_ours(lambda: Lineage.open(tmp_path))


TOML = st.sampled_from(["name", "stages", "source", "steps", "parent", "train_seed", "x"])
VALUE = st.sampled_from(['"a"', "1", "true", "[]", "{}", "1979-05-27", "nan", '"../.."', '""', "'a/b'"])


@given(st.lists(st.one_of(st.just("[[stages]]"), st.builds("{} = {}".format, TOML, VALUE), st.text(max_size=12))))
@FUZZ
def test_lineage_reader(tmp_path: Path, lines: list[str]) -> None:
    path = tmp_path / "lineage.toml"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    only_ours(lambda: manifest.load_manifest(path))


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
        only_ours(lambda: read_tensor_header(path))
        only_ours(lambda: read_tensors(path))
        only_ours(lambda: directions.load_direction(path))


HEADER = st.fixed_dictionaries(
    {"format": st.just(directions.DIRECTION_FORMAT)},
    optional={
        "site": st.sampled_from(["resid.1", "head.1.2", "", "../x"]) | JSON,
        "scale": st.sampled_from(["raw", "unit"]) | JSON,
        "facts": st.dictionaries(st.text(max_size=3), st.floats() | JSON, max_size=2) | JSON,
        **dict.fromkeys(("origin", "position", "sign", "tokenizer"), st.text(max_size=4) | JSON),
    },
)


@given(HEADER, st.sampled_from([torch.ones(4), torch.ones(2, 2), torch.zeros(0), torch.full((4,), torch.nan)]))
@FUZZ
def test_one_direction_reader(tmp_path: Path, told: dict[str, object], vector: torch.Tensor) -> None:
    path = tmp_path / "d.safetensors"
    save_file({"vector": vector}, path, metadata={"ontogeny": json.dumps(told)})
    only_ours(lambda: directions.load_direction(path))


OF_C = st.fixed_dictionaries(
    {**dict.fromkeys((*UNIT_HEADER_KEYS, "tokens", "revision", "train_seed"), JSON), "concept": st.just("c")}
)


@given(JSON | st.dictionaries(st.sampled_from(UNIT_HEADER_KEYS), JSON) | OF_C)
@FUZZ
def test_a_unit_with_any_header(tmp_path: Path, told: object) -> None:
    run = Run(tmp_path)
    run.keep("u", [])
    (tmp_path / "directions").mkdir(exist_ok=True)
    save_file({"a": torch.ones(1)}, tmp_path / "directions" / "u.safetensors", metadata={"ontogeny": json.dumps(told)})
    only_ours(lambda: measured_checkpoints(run, "c"))


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


URLS = (
    f"https://user:{SECRET}@huggingface.co/me/model",
    "https://me:pass-word-of-mine@host/a/b",
    f"https://host/model?token={SECRET}&x=1",
    SECRET,
)


@pytest.mark.parametrize("url", URLS)
def test_tokens_are_not_repeated(url: str, place: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # a token looks like a repository: no retries
    for words in (
        ("trace", url, "-c", place / "planted.csv", "-o", place / "out"),
        ("trace", place / "model", "-c", url, "-o", place / "out"),
        ("steer", place / "model", "-d", f"hub:{url}", "-p", "hi"),
        ("report", url),
    ):
        code, out, err = say(*words)
        assert code == 2
        assert SECRET not in out + err
        assert "pass-word-of-mine" not in out + err
    monkeypatch.setattr("sys.argv", ["ontogeny", "trace", url])
    assert SECRET not in command_line()
    assert "pass-word-of-mine" not in command_line()
    monkeypatch.setattr("sys.argv", ["ontogeny", "trace", "a/b", "-c", "x@y.csv"])
    assert command_line() == "ontogeny trace a/b -c x@y.csv"  # the control
