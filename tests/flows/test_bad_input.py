"""Bad input: one line that says what happened, what was given and what to do; exit code 2, and nothing left behind."""

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ontogeny import cli
from ontogeny.architectures import gpt_neox
from tests.flows.lineages import planted, rows, save_run, write
from tests.models import VOCAB, byte_tokenizer


@dataclass(frozen=True)
class Place:
    """What a bad input is made of: a good model, a good concept file, and a folder of its own."""

    folder: Path
    model: Path
    concept: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def copy(self) -> Path:
        """A model to damage."""
        return Path(shutil.copytree(self.model, self.folder / "model"))

    def trace(self, model: Path | str | None = None, concept: Path | str | None = None, *more: str) -> list[str]:
        return ["trace", str(model or self.model), "-c", str(concept or self.concept), "-o", str(self.out), *more]

    def rows(self, table: Sequence[dict], name: str = "mine.csv") -> Path:
        return write(self.folder / name, table)

    def text(self, content: str | bytes, name: str = "mine.csv") -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    planted(4.0).save_pretrained(folder / "model")
    byte_tokenizer().save_pretrained(folder / "model")
    write(folder / "planted.csv", rows(characters=30))
    return folder


@pytest.fixture
def place(home: Path, tmp_path: Path) -> Place:
    return Place(tmp_path, home / "model", home / "planted.csv")


def everything(folder: Path) -> set[tuple[str, int]]:
    """Every file and folder below, with its size."""
    return {(str(p.relative_to(folder)), p.stat().st_size if p.is_file() else -1) for p in folder.rglob("*")}


def said(capsys, monkeypatch, argv: Sequence[str]) -> tuple[int, str, str]:
    """Run a command in this process as `ontogeny` would: exit code, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["ontogeny", *argv])
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def one_line(err: str) -> str:
    """The message without the lines of progress before it."""
    lines = [line for line in err.splitlines() if not re.match(r"\[\d+/\d+\] ", line)]
    assert len(lines) == 1, err
    assert lines[0].startswith("ontogeny: "), err
    assert "Traceback" not in err
    return lines[0]


# --- weights, tokenizers and architectures ----------------------------------------------------------------------------------


def sharded(place: Place) -> Path:
    folder = place.folder / "model"
    AutoModelForCausalLM.from_pretrained(place.model).save_pretrained(folder, max_shard_size="40KB")
    AutoTokenizer.from_pretrained(place.model).save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def missing_shard(place: Place) -> list[str]:
    folder = sharded(place)
    (folder / "model-00002-of-00003.safetensors").unlink(missing_ok=True)
    sorted(folder.glob("*.safetensors"))[-1].unlink()
    return place.trace(folder)


def truncated_shard(place: Place) -> list[str]:
    folder = sharded(place)
    path = sorted(folder.glob("*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[:-100])
    return place.trace(folder)


def truncated_weights(place: Place) -> list[str]:
    folder = place.copy()
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    return place.trace(folder)


def lfs_pointer(place: Place) -> list[str]:
    folder = place.copy()
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    return place.trace(folder)


def no_weights(place: Place) -> list[str]:
    folder = place.copy()
    (folder / "model.safetensors").unlink()
    return place.trace(folder)


def pickle_only(place: Place) -> list[str]:
    folder = place.copy()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return place.trace(folder)


def not_finite(place: Place) -> list[str]:
    network = AutoModelForCausalLM.from_pretrained(place.model)
    with torch.no_grad():
        network.gpt_neox.layers[1].mlp.dense_h_to_4h.weight[3, 4] = torch.nan
    folder = place.copy()
    network.save_pretrained(folder)
    return place.trace(folder)


def other_shape(place: Place) -> list[str]:
    folder = place.copy()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    return place.trace(folder)


def more_layers(place: Place) -> list[str]:
    folder = place.copy()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    return place.trace(folder)


def broken_config(place: Place) -> list[str]:
    folder = place.copy()
    (folder / "config.json").write_text('{"model_type": "gpt_')
    return place.trace(folder)


def unknown_architecture(place: Place) -> list[str]:
    folder = place.folder / "model"
    config = AutoConfig.for_model(
        "mixtral",
        vocab_size=VOCAB,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=16,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return place.trace(folder)


def no_language_model(place: Place) -> list[str]:
    folder = place.copy()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "nonesuch"}))
    return place.trace(folder)


def unfit_architecture(place: Place, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    table = replace(gpt_neox.architecture, mlp="attention")
    monkeypatch.setattr(gpt_neox, "architecture", table)
    return place.trace()


def no_tokenizer(place: Place) -> list[str]:
    folder = place.copy()
    for path in folder.glob("*token*"):
        path.unlink()
    return place.trace(folder)


def broken_tokenizer(place: Place) -> list[str]:
    folder = place.copy()
    (folder / "tokenizer.json").write_text("{}")
    return place.trace(folder)


def foreign_tokenizer(place: Place) -> list[str]:
    folder = place.copy()
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([f"<extra{i}>" for i in range(100)])
    tokenizer.save_pretrained(folder)
    return place.trace(folder)


def tokenizer_nowhere(place: Place) -> list[str]:
    return place.trace(None, None, "--tokenizer", str(place.folder / "nowhere"))


def empty_folder(place: Place) -> list[str]:
    (place.folder / "model").mkdir()
    return place.trace(place.folder / "model")


def folder_of_texts(place: Place) -> list[str]:
    (place.folder / "model").mkdir()
    (place.folder / "model" / "notes.txt").write_text("no model")
    return place.trace(place.folder / "model")


MODELS: dict[Callable[..., list[str]], str] = {
    missing_shard: r"lacks \d of its \d+ weight shards, first model-0000\d.*Fetch or save it again",
    truncated_shard: r"model-00002-of-\d+\.safetensors is cut off.*Fetch or save it again",
    truncated_weights: r"model\.safetensors is cut off.*Fetch or save it again",
    lfs_pointer: r"git-lfs pointer.*`git lfs pull`",
    no_weights: r"has no weights.*save_pretrained",
    pickle_only: r"only as a pickle.*--allow-pickle",
    not_finite: r"are not finite \(gpt_neox\.layers\.1\.mlp\.dense_h_to_4h\.weight holds NaN or Inf\).*diverged",
    other_shape: r"have another shape for .*dense.*config asks.*again",
    more_layers: r"lack gpt_neox\.layers\.2.*config asks.*again",
    broken_config: r"config\.json cannot be read.*(again|checkpoint)",
    unknown_architecture: r"no architecture file serves models of type 'mixtral' \(.*no MLP.*\); known: .*gpt_neox.*Add one",
    no_language_model: r"nonesuch.*",
    unfit_architecture: r"gpt_neox does not fit its architecture table: .*Correct the table",
    no_tokenizer: r"no usable tokenizer in .*--tokenizer",
    broken_tokenizer: r"no usable tokenizer in .*--tokenizer",
    foreign_tokenizer: r"has 359 tokens but the model embeds 300: .*--tokenizer",
    tokenizer_nowhere: r"no usable tokenizer in .*nowhere.*--tokenizer",
    empty_folder: r"is empty\. Give a folder",
    folder_of_texts: r"holds no model.*checkpoint-N",
}


@pytest.mark.parametrize(("make", "expected"), MODELS.items(), ids=lambda v: getattr(v, "__name__", ""))
def test_models(make, expected, place: Place, capsys, monkeypatch) -> None:
    argv = make(place, monkeypatch) if "monkeypatch" in make.__annotations__ else make(place)
    refuses(place, argv, expected, capsys, monkeypatch)


def refuses(place: Place, argv: list[str], expected: str, capsys, monkeypatch) -> None:
    capsys.readouterr()
    before = everything(place.folder)
    code, out, err = said(capsys, monkeypatch, argv)
    line = one_line(err)
    assert re.search(expected, line), line
    assert code == 2
    assert out == ""
    assert everything(place.folder) == before, "something was left behind"


# --- concepts ---------------------------------------------------------------------------------------------------------------


def good() -> list[dict]:
    return rows(characters=30)


def longer_than_the_context(place: Place) -> list[str]:
    table = good()
    for row in table[:7]:
        row["text"] = "many words " * 10 + row["text"]
    return place.trace(None, place.rows(table))


def question_longer_than_the_context(place: Place) -> list[str]:
    table = rows(characters=30, answers=True)
    table[4]["prompt"] = "many words " * 10
    return place.trace(None, place.rows(table))


def answer_without_tokens(place: Place) -> list[str]:
    table = rows(characters=30, answers=True)
    return place.trace(None, place.rows([{k: v for k, v in row.items() if k != "prompt"} for row in table]))


def twice(place: Place) -> list[str]:
    other = place.rows(good(), "more/planted.csv")
    return [*place.trace(), "-c", str(other)]


CONCEPTS: dict[str, tuple[Callable[[Place], list[str]], str]] = {
    "no file": (lambda p: p.trace(None, "nowhere.csv"), r"no file nowhere\.csv\. Give the path"),
    "no such concept": (lambda p: p.trace(None, "subject_numbr"), r"no concept called.*did you mean subject_number"),
    "a folder": (lambda p: p.trace(None, p.text("x", "a.txt").parent), r"ending ''.*\.csv"),
    "empty": (lambda p: p.trace(None, p.text("")), r"mine\.csv is empty\..*text and label"),
    "header only": (lambda p: p.trace(None, p.text("text,label\n")), r"has a header and no rows"),
    "binary": (lambda p: p.trace(None, p.text(b"\x80\x00\xff" * 99)), r"is not UTF-8 text.*Save it as UTF-8"),
    "zeros": (lambda p: p.trace(None, p.text(b"text,label\0\0\0")), r"is a binary file"),
    "another ending": (lambda p: p.trace(None, p.text("x", "a.xlsx")), r"ending '\.xlsx'.*read from \.csv"),
    "missing column": (
        lambda p: p.trace(None, p.rows([{"text": r["text"], "truth": r["label"]} for r in good()])),
        r"no column 'label' or 'target', only 'text', 'truth'\. Rename",
    ),
    "an open quote": (lambda p: p.trace(None, p.text('text,label\n"one,1\ntwo,0\n')), r"line 2.*quote"),
    "no label in a row": (lambda p: p.trace(None, p.text("text,label\none,1\ntwo,\n")), r"line 3.*label"),
    "a torn line": (lambda p: p.trace(None, p.text('{"text": "on', "a.jsonl")), r"line 1: no valid JSON"),
    "one class": (
        lambda p: p.trace(None, p.rows([r | {"label": "1"} for r in good()])),
        r"needs examples of two classes: all 60 have.*Add the other class",
    ),
    "few groups": (
        lambda p: p.trace(None, p.rows([r | {"group": f"g{i % 4}"} for i, r in enumerate(good())])),
        r"has 4 groups among 60 examples, and a split needs 10.*Add examples, or give a finer `group`",
    ),
    "a class in one group": (
        lambda p: p.trace(None, p.rows([r | {"label": str(int(r["group"] == "c3"))} for r in good()])),
        r"stands in 1 group, and needs 2.*Add examples",
    ),
    "equal texts": (
        lambda p: p.trace(None, p.rows([r | {"text": "the same"} for r in good()])),
        r"all 60 texts are equal.*right column",
    ),
    "unclear labels": (
        lambda p: p.trace(None, p.rows([r | {"label": str(i % 20)} for i, r in enumerate(good())])),
        r"may be classes or numbers\. Write names",
    ),
    "too long": (longer_than_the_context, r"7 of 60 texts of mine are longer than the context of 64.*--truncate"),
    "a long question": (question_longer_than_the_context, r"question of mine has \d+ tokens, the context 64\. Shorten"),
    "answers without prompt": (answer_without_tokens, r"answers need the columns prompt.*'prompt' is missing"),
    "no span": (lambda p: p.trace(None, None, "--position", "mean:span"), r"marks no span.*span_start"),
    "two of one name": (twice, r"two concepts are called 'planted'\. Rename"),
}


@pytest.mark.parametrize(("make", "expected"), CONCEPTS.values(), ids=CONCEPTS)
def test_concepts(make, expected, place: Place, capsys, monkeypatch) -> None:
    refuses(place, make(place), expected, capsys, monkeypatch)


# --- options and places -----------------------------------------------------------------------------------------------------


def under_a_file(place: Place) -> list[str]:
    place.text("a file", "out")
    return [*place.trace()[:-1], str(place.folder / "out" / "run")]


OPTIONS: dict[str, tuple[Callable[[Place], list[str]], str]] = {
    "site": (lambda p: p.trace(None, None, "--sites", "residual"), r"'residual' is not a site.*resid, attn"),
    "site among others": (lambda p: p.trace(None, None, "--sites", "resid,mpl.1"), r"'mpl' is not a site"),
    "layer": (lambda p: p.trace(None, None, "--sites", "resid.7"), r"this model's layers are 0 to 2"),
    "no sites": (lambda p: p.trace(None, None, "--sites", ","), r"no sites given"),
    "fit": (lambda p: p.trace(None, None, "--fits", "logistik"), r"no fit called 'logistik'; did you mean logistic"),
    "steps": (lambda p: p.trace(None, None, "--steps", "some"), r"'some' selects no steps\. Write all"),
    "step": (lambda p: p.trace(None, None, "--steps", "7"), r"no checkpoint '7'.*Try --steps all"),
    "device": (lambda p: p.trace(None, None, "--device", "gpu"), r"the device 'gpu' cannot be used.*Choose cpu"),
    "dtype": (lambda p: p.trace(None, None, "--dtype", "float8"), r"no dtype called 'float8'"),
    "protocol": (lambda p: p.trace(None, None, "--protocol", "papr"), r"no protocol called 'papr'; did you mean"),
    "position": (lambda p: p.trace(None, None, "--position", "middle"), r"no position called 'middle'"),
    "limit": (lambda p: p.trace(None, None, "--limit", "6"), r"a limit of 6 examples is too small"),
    "template": (lambda p: p.trace(None, None, "--template"), r"no chat template.*--tokenizer"),
    "no folder": (lambda p: p.trace("no/such/folder"), r"there is no folder no/such/folder\. Give a folder"),
    "a file": (lambda p: p.trace(p.concept), r"is a file\. Give a folder"),
    "no manifest": (lambda p: p.trace("lineages.toml"), r"there is no file lineages\.toml"),
    "manifest": (lambda p: p.trace(p.text("[[stages]]\nname = 'a'", "l.toml")), r"stage 1 has no source\. Add"),
    "out under a file": (under_a_file, r"cannot write .*a part of the path is a file.*--out"),
}


@pytest.mark.parametrize(("make", "expected"), OPTIONS.values(), ids=OPTIONS)
def test_options(make, expected, place: Place, capsys, monkeypatch) -> None:
    refuses(place, make(place), expected, capsys, monkeypatch)


def test_out_that_is_no_run_stays_as_it_was(place: Place, capsys, monkeypatch) -> None:
    place.out.mkdir()
    (place.out / "thesis.tex").write_text("years of work")
    refuses(place, place.trace(), r"exists and is no run directory\. Choose", capsys, monkeypatch)
    shutil.rmtree(place.out)
    place.out.write_text("a file")
    refuses(place, place.trace(), r"exists and is no run directory\. Choose", capsys, monkeypatch)


def test_folders_that_were_made_on_the_way_go_too(place: Place, capsys, monkeypatch) -> None:
    argv = no_tokenizer(place)
    argv[argv.index("-o") + 1] = str(place.folder / "deep" / "er" / "out")
    refuses(place, argv, "no usable tokenizer", capsys, monkeypatch)
    (place.folder / "deep").mkdir()
    refuses(place, argv, "no usable tokenizer", capsys, monkeypatch)  # what was there before stays


def test_nothing_is_read_before_a_wrong_option_is_told(place: Place, capsys, monkeypatch) -> None:
    from ontogeny import model

    def load(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(model, "load", load)
    monkeypatch.setattr(model, "untrained", load)
    for name in ("site", "fit", "steps", "protocol", "position"):
        make, expected = OPTIONS[name]
        refuses(place, make(place), expected, capsys, monkeypatch)
    with pytest.raises(AssertionError, match="a model was loaded"):  # the control
        said(capsys, monkeypatch, place.trace())


@pytest.mark.parametrize("make", [not_finite, unknown_architecture, no_tokenizer])
def test_as_a_real_command(make, place: Place) -> None:
    argv, before = make(place), everything(place.folder)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "from ontogeny.cli import main; main()", *argv, "--quiet"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert re.search(MODELS[make], one_line(done.stderr))
    assert done.stderr.count("\n") == 1
    assert (done.returncode, done.stdout) == (2, "")
    assert everything(place.folder) == before


def test_an_interrupted_command_says_how_to_go_on(place: Place, capsys, monkeypatch) -> None:
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ontogeny.lab.visitor.capture", interrupt)
    code, out, err = said(capsys, monkeypatch, place.trace())
    assert (code, out) == (130, "")
    assert "interrupted. Start the same command again" in one_line(err)
    assert list(place.folder.iterdir()) == []


# --- the disk ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path):
    """small_disk(kilobytes) -> a file system of that size."""
    mounted = []
    libc = ctypes.CDLL(None, use_errno=True)

    def make(kilobytes: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        options = f"size={kilobytes}k".encode()
        if not hasattr(libc, "mount") or libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, options):
            pytest.skip("may not mount a small file system here")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        libc.umount2(bytes(folder), 2)


@pytest.mark.parametrize("kilobytes", [0, 8, 24, 40])
def test_a_disk_that_is_full_from_the_start(small_disk, kilobytes, place: Place, capsys, monkeypatch) -> None:
    disk = small_disk(max(kilobytes, 4))
    if not kilobytes:
        (disk / "filled").write_bytes(b"0" * 4096)
    argv = [*place.trace()[:-1], str(disk / "out"), "--sites", "resid"]
    before = everything(disk)
    code, out, err = said(capsys, monkeypatch, argv)
    assert re.search(r"cannot write .*: the disk is full\. Free some space", one_line(err)), err
    assert (code, out) == (2, "")
    assert everything(disk) == before


def test_a_disk_that_fills_up_leaves_what_is_done_valid(small_disk, place: Place, capsys, monkeypatch) -> None:
    disk = small_disk(300)
    save_run(place.folder / "run", dict.fromkeys(range(1, 16), 0.0))
    argv = [*place.trace(place.folder / "run")[:-1], str(disk / "out"), "--sites", "resid"]
    code, _, err = said(capsys, monkeypatch, argv)
    assert code == 2
    assert "the disk is full" in one_line(err)
    assert not list(disk.rglob("*.tmp"))
    counted = said(
        capsys, monkeypatch, ["query", str(disk / "out"), "select count(distinct step) from records", "-f", "csv"]
    )
    assert 0 < int(counted[1].split()[-1]) < 15
