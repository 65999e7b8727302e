"""Invalid options, output folders that cannot be written, and an interrupted command."""

import shutil
from collections.abc import Callable

import pytest

from tests.flows.bad_input.place import Place, Refuses, one_line
from tests.helpers.command_line import Say


def under_a_file(place: Place) -> list[str]:
    place.text("a file", "out")
    return [*place.trace()[:-1], str(place.folder / "out" / "run")]


OPTIONS: dict[str, tuple[Callable[[Place], list[str]], str]] = {
    "site": (lambda p: p.trace(None, None, "--sites", "residual"), r"'residual' is not a site.*resid, attn"),
    "site among others": (lambda p: p.trace(None, None, "--sites", "resid,mpl.1"), r"'mpl' is not a site"),
    "layer": (lambda p: p.trace(None, None, "--sites", "resid.7"), r"this model's layers are 0 to 2"),
    "no sites": (lambda p: p.trace(None, None, "--sites", ","), r"must name a site, got"),
    "probe": (
        lambda p: p.trace(None, None, "--probes", "logistik"),
        r"no probe called 'logistik'; did you mean logistic",
    ),
    "steps": (lambda p: p.trace(None, None, "--steps", "some"), r"'some' selects no steps: write all"),
    "step": (lambda p: p.trace(None, None, "--steps", "7"), r"no checkpoint '7'.*set --steps to all"),
    "device": (lambda p: p.trace(None, None, "--device", "gpu"), r"the device 'gpu' cannot be used.*Choose cpu"),
    "dtype": (lambda p: p.trace(None, None, "--dtype", "float8"), r"no dtype called 'float8'"),
    "protocol": (lambda p: p.trace(None, None, "--protocol", "papr"), r"no protocol called 'papr'; did you mean"),
    "position": (lambda p: p.trace(None, None, "--position", "middle"), r"no position called 'middle'"),
    "limit": (lambda p: p.trace(None, None, "--limit", "6"), r"a limit of 6 examples is too small"),
    "template": (
        lambda p: p.trace(None, None, "--template", "own"),
        r"no checkpoint has a chat template: leave --template off.*--tokenizer",
    ),
    "no folder": (lambda p: p.trace("no/such/folder"), r"there is no folder no/such/folder: give a folder"),
    "a file": (lambda p: p.trace(p.concept), r"is a file: give a folder"),
    "no manifest": (lambda p: p.trace("lineages.toml"), r"there is no file lineages\.toml"),
    "manifest": (lambda p: p.trace(p.text("[[stages]]\nname = 'a'", "l.toml")), r"stage 1 has no source: add"),
    "out under a file": (under_a_file, r"cannot write .*a part of the path is a file.*--out"),
}


@pytest.mark.parametrize(("make", "expected"), OPTIONS.values(), ids=OPTIONS)
def test_options(make, expected, place: Place, refuses: Refuses) -> None:
    refuses(make(place), expected)


def test_folder_that_is_not_a_run_is_unchanged(place: Place, refuses: Refuses) -> None:
    place.out.mkdir()
    (place.out / "thesis.tex").write_text("years of work")
    refuses(place.trace(), r"--out must be a run directory or an empty folder, got .*choose another")
    shutil.rmtree(place.out)
    place.out.write_text("a file")
    refuses(place.trace(), r"--out must be a run directory or an empty folder, got .*choose another")


def test_invalid_options_fail_before_a_model_is_loaded(place: Place, refuses: Refuses, say: Say, monkeypatch) -> None:
    def load(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("ontogeny.models.model.load_model", load)
    monkeypatch.setattr("ontogeny.jobs.trace.executor.untrained_model", load)
    for name in ("site", "probe", "steps", "protocol", "position"):
        make, expected = OPTIONS[name]
        refuses(make(place), expected)
    with pytest.raises(AssertionError, match="a model was loaded"):  # the control
        say(*place.trace())


def test_interrupted_command_explains_how_to_resume(place: Place, say: Say, monkeypatch) -> None:
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ontogeny.jobs.trace.executor.capture_workload", interrupt)
    code, out, err = say(*place.trace())
    assert (code, out) == (130, "")
    assert "interrupted. Start the same command again" in one_line(err)
    assert list(place.folder.iterdir()) == []
