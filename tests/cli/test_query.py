"""`ontogeny query`: whole columns for programs; on a screen names are whole and texts wrap."""

import io
import json

import pytest
from rich.console import Console

from ontogeny.cli import query
from ontogeny.cli._output import json_rows, json_text

NAMES = ["concept", "site", "metric", "text"]
LONG = "It was a day like others, and the sun was up.\nThen it was night, and nobody knew why the moon had gone away so early."
ROWS = [["truth_common_claims", "attn_resid.12", "sample_surprise", LONG], ["age", "resid.1", "auroc", ""]]


def on_screen(width: int, rows: list[list[str]] = ROWS) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    query._print_on_screen(console, NAMES, rows)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 120, 240])
def test_names_are_whole_at_every_width(width: int) -> None:
    lines = on_screen(width)
    assert max(map(len, lines)) <= width
    for name in (*NAMES, *(cell for row in ROWS for cell in row[:3])):
        assert any(name in line for line in lines), name
    assert "…" not in "".join(lines)
    words = "".join("".join(lines).replace("│", " ").split())
    assert all(word in words for word in ("nobody", "early."))


def test_a_narrow_screen_gets_a_block_for_each_row() -> None:
    assert any(line.startswith("concept") and "truth_common_claims" in line for line in on_screen(60))
    assert not any(line.startswith("concept") for line in on_screen(200))


@pytest.mark.parametrize("width", [30, 120])  # a block for each row, and a table
def test_brackets_on_screen_are_not_markup(width: int) -> None:
    assert any("[red]a|b" in line for line in on_screen(width, [["[red]a|b", "resid.1", "auroc", ""]]))


def test_a_pipe_gets_whole_columns_a_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    query._print_whole(NAMES, ROWS)
    header, first, second = capsys.readouterr().out.splitlines()
    assert LONG.replace("\n", "\\n") in first
    assert header.index("metric") == first.index("sample_surprise") == second.index("auroc")


def test_markdown_keeps_a_row_on_a_line() -> None:
    import pandas as pd

    lines = query._markdown(pd.DataFrame([{"text": LONG, "site": "a|b"}])).splitlines()
    assert len(lines) == 3
    assert "up.<br>Then" in lines[2]


def test_json_keeps_every_digit_and_has_no_nan() -> None:
    import duckdb

    frame = duckdb.sql(
        "select 4.115818731134218e-16::double as small, null::int as step, 'nan'::double as lost, 'inf'::double as far, "
        "map {'at': '0.05'} as coords, [1.5, null] as list union all select 2, 3, 1, 2, map {}, []"
    ).df()
    first, second = json.loads(json_text(json_rows(frame)))
    assert first == {
        "small": 4.115818731134218e-16, "step": None, "lost": None, "far": None, "coords": {"at": "0.05"}, "list": [1.5, None],
    }  # fmt: skip
    assert (second["step"], second["coords"], second["list"]) == (3, {}, [])
    assert json.loads(json_text({"deep": [{"value": float("nan")}]})) == {"deep": [{"value": None}]}
