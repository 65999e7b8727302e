"""The Python code of a checkpoint never runs, and nobody is asked whether it may."""

import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.command_line import Say
from tests.helpers.planted_lineages import rows, write

EVIL = "open('pwned', 'w').write('x')\nclass Config: ...\nclass Model: ...\nclass Tokenizer: ...\n"
PLACES = ("evil.", "other/repository--evil.")


@pytest.fixture
def model(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good model with code beside it, and a user who answers yes to every question."""
    folder = Path(shutil.copytree(tiny("llama"), tmp_path / "model"))
    (folder / "evil.py").write_text(EVIL)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(EVIL)
    write(tmp_path / "planted.csv", rows(characters=30))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("a question was asked"))
    return folder


def change(path: Path, **settings: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def trace(model: Path, say: Say) -> tuple[int, list[str]]:
    options = ("--sites", "resid", "--probes", "mass_mean", "--no-untrained", "--limit", 40)
    code, _, err = say("trace", model, "-c", model.parent / "planted.csv", "-o", model.parent / "out", "-q", *options)
    assert not (model.parent / "pwned").exists()
    return code, err.splitlines()


@pytest.mark.parametrize("at", PLACES)
def test_code_of_an_unknown_type_is_refused(at: str, model: Path, say: Say) -> None:
    auto_map = {"AutoConfig": f"{at}Config", "AutoModelForCausalLM": f"{at}Model"}
    change(model / "config.json", model_type="evil", auto_map=auto_map)
    code, lines = trace(model, say)
    assert (code, len(lines)) == (2, 1)
    assert "needs Python code of its own (auto_map), which is never run" in lines[0]


@pytest.mark.parametrize("at", PLACES)
def test_known_type_is_read_without_its_code(at: str, model: Path, say: Say) -> None:
    auto_map = {"AutoConfig": f"{at}Config", "AutoModelForCausalLM": f"{at}Model"}
    change(model / "config.json", auto_map=auto_map)
    change(model / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, f"{at}Tokenizer"]})
    assert trace(model, say)[0] == 0


@pytest.mark.parametrize("at", PLACES)
def test_code_of_an_unknown_tokenizer_is_refused(at: str, model: Path, say: Say) -> None:
    change(model / "config.json", model_type="gpt_neox")
    change(
        model / "tokenizer_config.json",
        tokenizer_class="EvilTokenizer",
        auto_map={"AutoTokenizer": [f"{at}Tokenizer", None]},
    )
    code, lines = trace(model, say)
    assert (code, len(lines)) == (2, 1)
