"""Saved charts of names that a page could run or a picture cannot hold."""

from pathlib import Path

import pytest

from ontogeny import views
from tests.helpers import synthetic_records

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
CONTROL = "bell\x07 red\x1b[31m nul\0 back\u202e half\ud800 end\uffff"


def chart(name: str):
    return views.load_view("concepts").draw(synthetic_records.table().replace({"concept": {"privacy": name}}))


@pytest.mark.parametrize("ending", ["png", "svg", "html", "json"])
def test_control_characters_are_written_out(ending: str, tmp_path: Path) -> None:
    content = views.save_chart(chart(CONTROL), tmp_path / f"c.{ending}").read_bytes()
    assert not set(b"\x07\x1b\x00") & set(content) or ending == "png"
    if ending != "png":
        assert b"\\x1b[31m" in content.replace(b"\\\\", b"\\")


def test_page_has_a_policy_and_no_markup_in_its_data(tmp_path: Path) -> None:
    page = views.save_chart(chart(HOSTILE), tmp_path / "c.html").read_text()
    assert "script-src 'sha256-" in page
    assert "document.title" in page
    assert "<script>document.title" not in page
    assert 'src="http' not in page


def test_a_still_picture_does_not_ask_to_be_clicked(tmp_path: Path) -> None:
    drawn = views.load_view("emergence").draw(synthetic_records.table())
    assert "click to single out" in views.save_chart(drawn, tmp_path / "c.html").read_text()
    assert "click to" not in views.save_chart(drawn, tmp_path / "c.svg").read_text()
