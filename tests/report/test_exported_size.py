"""Sizes of exported pictures, the parts of a run that they show, and what is written inside them."""

import re
import struct
from pathlib import Path
from typing import Any

import pytest

from ontogeny import views
from ontogeny.errors import BadInput
from ontogeny.storage.run import Run
from tests.helpers import synthetic_records


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    table = synthetic_records.table(sft=True)
    kept = table["concept"].isin(["truth", "privacy"])
    kept &= table["metric"].isin(["auroc", "p_familywise", "cv_score", "best_site", "emergence_step"])
    made = Run(tmp_path_factory.mktemp("runs") / "run")
    made.describe(synthetic_records.about(sft=True))
    made.keep("all", synthetic_records.as_records(table[kept & (table["head"].isna() | table["head"].lt(2))]))
    return made


@pytest.fixture(scope="module")
def chart(run: Run) -> Any:
    return run.show("emergence", concepts=["truth"])


def png_size(path: Path) -> tuple[int, int]:
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    return width, height


@pytest.mark.parametrize(("width", "pixels"), [("85mm", 1004), ("3.3in", 990), (400, 800), ("600px", 1200)])
def test_png_has_its_width(width: str | float, pixels: int, chart: Any, tmp_path: Path) -> None:
    """300 dots an inch for a length of paper, two dots a px."""
    path = views.save_chart(chart, tmp_path / "c.png", width=width)
    assert png_size(path)[0] == pytest.approx(pixels, abs=3)


def test_svg_and_pdf_have_their_width(chart: Any, tmp_path: Path) -> None:
    svg = views.save_chart(chart, tmp_path / "c.svg", width="85mm").read_text()
    size = re.search(r'<svg[^>]* width="([\d.]+)mm" height="([\d.]+)mm"', svg)
    assert size is not None
    assert float(size[1]) == pytest.approx(85, abs=0.2)
    pdf = views.save_chart(chart, tmp_path / "c.pdf", width="85mm").read_bytes()
    box = re.search(rb"MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert box is not None
    assert float(box[1]) == pytest.approx(85 / 25.4 * 72, abs=1)
    assert b"FontFile" in pdf


def test_height_is_kept(chart: Any, tmp_path: Path) -> None:
    assert png_size(views.save_chart(chart, tmp_path / "c.png", height=900))[1] == pytest.approx(1800, abs=4)


@pytest.mark.parametrize("width", ["wide", "-3mm", "2mm", "1e9", "3 furlongs", 0])
def test_rejects_width_that_no_picture_has(width: str | float, chart: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="`width` must be"):
        views.save_chart(chart, tmp_path / "c.png", width=width)
    assert list(tmp_path.iterdir()) == []


def test_picture_holds_title_run_and_caption(chart: Any, tmp_path: Path) -> None:
    svg = views.save_chart(chart, tmp_path / "c.svg").read_text()
    words = " ".join(re.findall(r">([^<>]+)<", svg))
    assert "Emergence" in words
    assert "tiny-neox" in words
    assert "gives no evidence for the concept" in words


def texts(chart: Any) -> str:
    return str(chart.to_dict(validate=False))


def test_concept_stage_and_site_are_chosen(run: Run) -> None:
    one = texts(run.show("emergence", concepts=["truth"]))
    assert "privacy" not in one
    early = texts(run.show("emergence", concepts=["truth"], stages=["pretrain"]))
    assert "'sft'" not in early
    assert "resid.1" in texts(run.show("emergence", concepts=["truth"], sites=["resid.1"]))
    assert "resid.3" not in texts(run.show("emergence", concepts=["truth"], sites=["resid.1"]))
    assert "head.1.0" in texts(run.show("heads", concepts=["truth"], sites=["head"]))


def test_heads_are_drawn_at_a_step(run: Run) -> None:
    assert "at sft 800" in texts(run.show("heads"))
    drawn = texts(run.show("heads", step=512))
    assert "at pretrain 512" in drawn
    assert "'step': 800" not in drawn


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"concepts": ["trut"]}, "did you mean truth"),
        ({"sites": ["resid.9"]}, "no site in this run"),
        ({"stages": ["dpo"]}, "no stage in this run"),
        ({"step": 513}, "use one of the nearest, .*pretrain 512"),
    ],
)
def test_rejects_what_the_run_lacks(named: dict[str, Any], message: str, run: Run) -> None:
    with pytest.raises(BadInput, match=message):
        run.show("emergence", **named)


def test_step_of_several_stages_needs_its_stage(tmp_path: Path) -> None:
    rows = [
        {
            "stage": stage,
            "step": step,
            "concept": "truth",
            "site": "resid.1",
            "layer": 1,
            "metric": "auroc",
            "value": 0.7,
            "n": 9,
        }
        for stage in ("base", "dpo")
        for step in (0, 10)
    ]
    run = Run(tmp_path / "run")
    run.describe({"concepts": [], "lineage": {}})
    run.keep("all", synthetic_records.as_records(synthetic_records.frame(rows)))
    with pytest.raises(BadInput, match="`step` 10 is in the stages base, dpo"):
        run.show("layers", step=10)
    assert "'dpo'" in texts(run.show("layers", step=10, stages=["dpo"]))
