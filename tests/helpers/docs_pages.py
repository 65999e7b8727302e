"""Run the code blocks of README and docs in a folder that holds the models and concept files they name, as small as possible.

By the kind of a block: `sh` (each `ontogeny …` is run, `make …` must be a target), `python` (run, one namespace per page), `csv`, `jsonl`
and `toml` with `file=…` (written, concepts also read). `python file=…` is a recipe and tested by the contract tests.
"""

import json
import re
import shlex
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *(p for p in sorted((ROOT / "docs").rglob("*.md")) if p.name != "log.md" and "/docs/_" not in p.as_posix()),
]
"""Without the log, which may name things that no longer exist, and without pages that are made for the site."""
ELSEWHERE = ("git", "cd", ".", "source", ".venv/bin/python", ".ci/run")
"""First words of commands that are skipped; another test runs the pytest commands of the recipes."""


@dataclass(frozen=True)
class Block:
    kind: str
    options: dict[str, str]
    text: str
    info: str

    @property
    def file(self) -> str | None:
        return self.options.get("file")

    @staticmethod
    def read(page: str) -> list["Block"]:
        page_blocks = []
        for info, text in re.findall(r"(?ms)^```(\S[^\n]*)\n(.*?)^```$", page):
            kind, *rest = info.split()
            page_blocks.append(Block(kind, {k: v for k, _, v in (word.partition("=") for word in rest)}, text, info))
        return page_blocks


def blocks(page: Path) -> list[Block]:
    return Block.read(page.read_text(encoding="utf-8"))


def workplace(folder: Path) -> None:
    """Write the models and concepts that the pages name; a folder is preferred to a repository of the same name."""
    from tests.helpers.tiny_models import save_tiny

    for steps, pattern in (
        ((0, 1, 2, 4, 8), "EleutherAI/pythia-160m/step{}"),
        ((10, 20, 40, 80), "path/to/trainer-output/checkpoint-{}"),
        ((0, 100), "checkpoints/step{}"),
        ((5, 10), "sft/checkpoint-{}"),
    ):
        for seed, step in enumerate(steps):
            save_tiny("gpt_neox", folder / pattern.format(step), seed=seed)
    words = [
        a + b + c
        for a in "bdfgklmnprst"
        for b in ("ari", "elo", "ina", "oru")
        for c in ("ban", "den", "fol", "gan", "lum", "mir")
    ]
    lines = (
        f"{words[i * 7 % 288]} {words[i * 31 % 288]} {words[i * 101 % 288]} went to {words[i % 288]}.\n"
        for i in range(4000)
    )
    (folder / "book.txt").write_text("".join(lines), encoding="utf-8")
    nouns = ("tower", "river", "garden", "table", "road")
    rows = [(f"the {nouns[i % 5]} number {i} of {i * 7 % 31}", i % 3 % 2) for i in range(60)]
    (folder / "mine.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    with (folder / "other.jsonl").open("w") as file:
        for text, label in rows:
            row = {"text": text, "label": ("small", "tall")[label], "prompt": f"{text} is"}
            right, wrong = (" tall", " small") if label else (" small", " tall")
            file.write(json.dumps(row | {"right": right, "wrong": wrong}) + "\n")


def main(pages: list[str]) -> None:
    """Run pages in the current folder; the last printed line is the number of blocks."""
    warnings.simplefilter("error")
    _command("ontogeny trace path/to/trainer-output -c mine.csv -c other.jsonl --out runs/mine --quiet")
    print(json.dumps({"ran": sum(run_page(Path(page)) for page in pages)}))


def run_page(page: Path) -> int:
    """Run the blocks of one page and count them.

    Raises:
        AssertionError: a block failed.
    """
    names: dict[str, Any] = {"__name__": "page"}
    ran = 0
    for block in blocks(page):
        place = f"{page.name}: {block.text.strip().splitlines()[0]}"
        if block.kind == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                _command(line)
        elif block.kind == "python" and block.file is None:
            try:
                exec(compile(block.text, f"{page.name}", "exec"), names)
            except Exception:
                raise AssertionError(f"{place}\n{traceback.format_exc()}") from None
        elif block.kind in ("csv", "jsonl") and block.file:
            _concept(block, place)
        elif block.kind == "toml" and block.file:
            Path(block.file).write_text(block.text)
        else:
            continue
        ran += 1
    return ran


def _command(line: str) -> None:
    """Run one line of a shell block, apart from skipped commands."""
    from ontogeny.cli import app
    from ontogeny.errors import BadInput

    words = shlex.split(line, comments=True)
    if not words or words[0] in ELSEWHERE:
        return
    if words[0] == "make":
        targets = re.findall(r"(?m)^(\w+):", (ROOT / "Makefile").read_text())
        assert set(words[1:]) <= set(targets), f"{line}: not a target of the Makefile"
        return
    assert words[0] == "ontogeny", f"{line}: unknown command"
    if words[1:2] == ["demo"]:
        words.append("--help")  # it takes minutes and has its own test
    if words[1:] == ["report", "runs/mine"] and Path("runs/mine/report.html").is_file():
        return  # another page has written it
    if words[1:4] == ["study", "run", "swing_by"]:
        words += ["--set", "steps=60"]  # a fifth of the preset's
    result = CliRunner().invoke(app, words[1:])
    if isinstance(result.exception, BadInput) or result.exit_code != 0:
        raise AssertionError(f"{line}\n{result.exception!r}\n{result.output[-2000:]}")


def _concept(block: Block, place: str) -> None:
    """Write and read a concept file: the rows that the page shows, repeated until they are enough for a concept."""
    from ontogeny import Concept

    lines = block.text.strip().splitlines()
    if block.kind == "jsonl":
        written = [json.dumps(_copy(json.loads(line), i)) for i in range(12) for line in lines]
    else:
        import csv
        import io

        out = io.StringIO()
        rows = list(csv.DictReader(lines))
        assert all(None not in row and None not in row.values() for row in rows), place
        writer = csv.DictWriter(out, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(_copy(row, i) for i in range(12) for row in rows)
        written = out.getvalue().splitlines()
    assert block.file
    Path(block.file).write_text("\n".join(written) + "\n")
    Concept.from_file(block.file)


def _copy(row: dict[str, Any], i: int) -> dict[str, Any]:
    """A copy of a row in another group."""
    text = "text" if "text" in row else "statement"
    changed = row | {text: f"{row[text]}{' again' * i}"}
    return changed | {key: f"{row[key]}-{i}" for key in ("group", "pair") if row.get(key)}


def options_of_the_cli() -> set[str]:
    """Every long option of every command."""
    import typer

    from ontogeny.cli import app

    group = typer.main.get_command(app)
    commands = [group, *getattr(group, "commands", {}).values()]
    commands += [command for one in commands[1:] for command in getattr(one, "commands", {}).values()]
    options = {
        opt
        for command in commands
        for parameter in command.params
        for opt in (*parameter.opts, *parameter.secondary_opts)
    }
    return {opt for opt in options if opt.startswith("--")} | {"--help"}
