"""Options: the library names Python arguments, the command line names options, and old spellings still work."""

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from ontogeny.cli import _command, app
from ontogeny.errors import BadInput
from tests.helpers.command_line import Say
from tests.helpers.docs_pages import ROOT

PACKAGE = ROOT / "src/ontogeny"
OPTION = re.compile(r"(?<![\w-])--[a-z]")
RECORDED = "the vector is put where the probe reads, at the last layer: a dot product. Give answers, or another --site"
"""A note in the records of earlier runs, which must stay as it is."""
GROUP: Any = typer.main.get_command(app)


def options_in_strings(source: str) -> Iterator[tuple[int, str]]:
    """Lines and texts of the string constants that name a command-line option, docstrings included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and OPTION.search(node.value):
            yield node.lineno, node.value


def test_only_the_command_line_names_options() -> None:
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE / "cli"]
    assert len(files) > 300
    assert [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path in files
        for line, text in options_in_strings(path.read_text(encoding="utf-8"))
        if text != RECORDED
    ] == []


def test_an_option_in_a_string_is_detected() -> None:
    assert [
        line for line, _ in options_in_strings('"""Set --truncate."""\nx = f"{y}: pass --out"\n# --fine\nz = "a--b"')
    ] == [1, 2]


# --- old spellings ------------------------------------------------------------------------------------------------------------

OLD_AND_NEW = {
    "raise": ("raise -o x --text book.txt", "train -o x --text-file book.txt"),
    "trace --fits": ("trace m -c a.csv -o x --fits pca", "trace m -c a.csv -o x --probes pca"),
    "trace --fits=": ("trace m -c a.csv -o x --fits=pca", "trace m -c a.csv -o x --probes=pca"),
    "trace columns": (
        "trace m -c a.csv -o x --text body --label truth",
        "trace m -c a.csv -o x --text-column body --label-column truth",
    ),
    "compare --views": ("compare m -o x --views knowledge,truth", "compare m -o x --studies knowledge,truthfulness"),
    "compare --texts": ("compare m -o x --texts a.txt", "compare m -o x --neutral a.txt"),
    "steer --method": ("steer m -d run:truth -p Hi --method pca", "steer m -d run:truth -p Hi --probe pca"),
    "evaluate --alphas": ("evaluate m -c truth --alphas 1,2", "evaluate m -c truth --alpha 1,2"),
    "transfer --from": (
        "transfer m -c truth --from x --into last --equal-cost 0.1",
        "transfer m -c truth --run x --target last --equal-kl 0.1",
    ),
    "transfer --onto": ("transfer m -c truth -o x --onto other", "transfer m -c truth -o x --to-model other"),
    "monitor --at": ("monitor x --at 0.1 --at 0.2", "monitor x --fpr 0.1 --fpr 0.2"),
    "monitor --across": (
        "monitor x --across a.csv --across b.csv --text body --label truth",
        "monitor x --cross-concept a.csv --cross-concept b.csv --text-column body --label-column truth",
    ),
    "list fits": ("list fits", "list probes"),
    "list lineages": ("list lineages", "list suites"),
    "show k_alpha": ("show x y k_alpha", "show x y alpha_grid"),
}


def parsed(line: str) -> tuple[str, dict[str, Any]]:
    """The command and the values of its parameters."""
    with GROUP.make_context("ontogeny", line.split()) as context:
        name, command, args = GROUP.resolve_command(context, [*context._protected_args, *context.args])
        return name, command.make_context(name, args, parent=context).params


@pytest.mark.parametrize(("old", "new"), OLD_AND_NEW.values(), ids=OLD_AND_NEW)
def test_old_spelling_means_the_new_one(old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = parsed(new)
    assert capsys.readouterr() == ("", "")
    assert parsed(old) == expected
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines == list(dict.fromkeys(lines)), "each old spelling is announced once"
    for line in lines:
        before, after = re.fullmatch(r"ontogeny: (.+) is now (.+)\.", line).groups()
        assert before.split()[-1] in old
        assert after.split()[-1] in new
    words = set(re.split(r"[ =,]", old)) - set(re.split(r"[ =,]", new))
    assert len(lines) == len(words)


def test_every_old_spelling_is_tested_and_leads_to_an_existing_option() -> None:
    tested = {(old.split()[0], word.split("=")[0]) for old, _ in OLD_AND_NEW.values() for word in old.split()}
    for command, options in _command.OLD_OPTIONS.items():
        existing = {name for parameter in GROUP.commands[command].params for name in parameter.opts}
        for old, new in options.items():
            assert old not in existing, (command, old)
            assert new in existing, (command, new)
            assert {(command, old), ({v: k for k, v in _command.OLD_COMMANDS.items()}.get(command), old)} & tested
    shown = {text for _, text in OLD_AND_NEW.values()}
    for command, (parameter, values) in _command.OLD_VALUES.items():
        assert parameter in {p.name for p in GROUP.commands[command].params}
        assert all(any(new in text for text in shown) for new in values.values())


def test_a_value_that_looks_like_an_old_option_stays(capsys: pytest.CaptureFixture[str]) -> None:
    _, values = parsed("steer m -d run:truth -p --method --prompt=--method")
    assert values["prompt"] == ["--method", "--method"]
    assert parsed("show k_alpha emergence")[1]["args"][0] == "k_alpha"
    assert capsys.readouterr() == ("", "")


def test_json_stays_alone_on_stdout(say: Say) -> None:
    done = say("list", "fits", "--json")
    assert done.err == "ontogeny: fits is now probes.\n"
    assert "logistic" in json.loads(done.out)["probes"]


# --- errors -------------------------------------------------------------------------------------------------------------------


def test_an_error_of_the_library_names_the_option(say: Say, tiny: Callable[..., Path], tmp_path: Path) -> None:
    rows = [f"the {'old' if i % 2 else 'new'} house number {i},{i % 2}" for i in range(60)]
    (tmp_path / "short.csv").write_text("\n".join(["text,label", *rows]))
    (tmp_path / "long.csv").write_text("\n".join(["text,label", *(f"{'far ' * 2000}{row}" for row in rows)]))
    short = ("trace", tiny("gpt_neox"), "-c", tmp_path / "short.csv", "-o")
    errors = {
        "--truncate": ("trace", tiny("gpt_neox"), "-c", tmp_path / "long.csv", "-o", tmp_path / "out"),
        "--out": (*short, tmp_path / "short.csv"),
        "--tokenizer": (*short, tmp_path / "out", "--template"),
    }
    for option, args in errors.items():
        done = say(*args, "-q")
        assert (done.code, done.out) == (2, "")
        assert option in done.err
        assert "`" not in done.err, done.err


@pytest.mark.parametrize(
    ("command", "message", "expected"),
    [
        ("trace", "too long: shorten it, or set `truncate`.", "too long: shorten it, or set --truncate."),
        ("trace", "`fits` must not be empty, got ().", "--probes must not be empty, got ()."),
        ("trace", "choose another `out`.", "choose another --out."),
        ("evaluate", "`alphas` must be finite, got nan.", "--alpha must be finite, got nan."),
        ("transfer", "set `into` to a checkpoint, or `equal_cost`.", "set --target to a checkpoint, or --equal-kl."),
        ("monitor", "`rates` must be between 0 and 1, got 2.", "--fpr must be between 0 and 1, got 2."),
        ("compare", "add `statements`, or shorten `studies`.", "add --statements, or shorten --studies."),
        ("query", "`nothing` of this kind", "`nothing` of this kind"),
        ("audit", "set `truncate`", "set `truncate`"),
    ],
)  # fmt: skip
def test_arguments_become_options_of_the_command(
    command: str, message: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = GROUP.commands[command]

    def fail(**_: Any) -> None:
        raise BadInput(message)

    monkeypatch.setattr(target, "callback", fail)
    arguments: dict[str, str] = {"trace": "m -c a -o x", "transfer": "m -c a -o x", "compare": "m -o x"}
    context = target.make_context(command, arguments.get(command, "m -c a" if command == "evaluate" else "m").split())
    with pytest.raises(BadInput) as caught:
        target.invoke(context)
    assert str(caught.value) == expected
