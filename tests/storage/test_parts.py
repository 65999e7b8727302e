"""Parts of a run: merging them loses nothing, an interrupted merge counts each unit once, and the index is only a cache."""

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ontogeny.records import Record
from ontogeny.storage import parts
from ontogeny.storage.files import RecordBlock, write_records
from ontogeny.storage.run import Run

CONCEPTS = ("truth", "tone")
SITES = {"resid": ["resid.0", "resid.1"]}


def keep(run: Run, step: int, concept: str) -> str:
    unit = f"{concept}{step:03d}"
    draw = torch.Generator().manual_seed(step)
    header = {
        "concept": concept,
        "stage": "base",
        "checkpoint": f"checkpoint-{step}",
        "step": step,
        "order": step,
        "sites": SITES,
        "methods": {"mass_mean": "unit"},
    }
    run.keep(
        unit,
        [
            Record("auroc", 0.5 + step / 100, n=9, step=step, stage="base", concept=concept, site=site, unit=unit)
            for site in SITES["resid"]
        ],
        header=header,
        directions={"mass_mean/resid/direction": torch.randn(2, 4, 1, generator=draw)},
        scores={"mass_mean/resid": torch.randn(2, 9, 1, generator=draw)},
    )
    return unit


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    run.describe({"lineage": {"name": "tiny"}, "concepts": [], "settings": {}})
    for step in (1, 2, 3):
        for concept in CONCEPTS:
            keep(run, step, concept)
    run.keep("series-1", [Record("best_site", 1.0, n=9, concept="truth", unit="series-1")])
    return run


def table(run: Run) -> pd.DataFrame:
    return run.records().sort_values(["unit", "site"]).reset_index(drop=True)


def content(run: Run) -> dict[str, torch.Tensor]:
    return {
        f"{unit}/{name}": tensor
        for unit in run.headers()
        for tensors in (run.directions(unit), run.scores(unit))
        for name, tensor in tensors.items()
    }


def assert_same(run: Run, rows: pd.DataFrame, tensors: dict[str, torch.Tensor]) -> None:
    pd.testing.assert_frame_equal(table(run), rows)
    now = content(run)
    assert now.keys() == tensors.keys()
    assert all(torch.equal(now[name], tensor) for name, tensor in tensors.items())


def test_compaction_keeps_rows_tensors_and_headers(run: Run) -> None:
    rows, tensors, headers = table(run), content(run), run.headers()
    run.compact()
    assert_same(run, rows, tensors)
    assert run.headers() == headers
    names = sorted(path.stem for path in (run.folder / "records").iterdir())
    assert len(names) == 4
    assert names[-1] == "series-1"
    assert all(len(list((run.folder / kind).iterdir())) == 3 for kind in ("directions", "scores"))
    assert run.done("truth001")
    assert torch.equal(
        run.tensor_rows("directions", "tone002", "mass_mean/resid/direction", slice(1, 2)),
        run.directions("tone002")["mass_mean/resid/direction"][1:2],
    )


def test_second_compaction_changes_no_file(run: Run) -> None:
    run.compact()
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()}
    run.compact()
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()} == before


def test_interrupted_compaction_counts_each_unit_once(run: Run, tmp_path: Path) -> None:
    rows, tensors = table(run), content(run)
    shutil.copytree(run.folder, tmp_path / "before")
    run.compact()
    # Killed after the merged part was written and before the unit parts were removed.
    for kind in parts.KINDS:
        for path in (tmp_path / "before" / kind).iterdir():
            shutil.copy2(path, run.folder / kind / path.name)
    # Of one unit the records were removed already.
    (run.folder / "records" / "truth001.parquet").unlink()
    assert_same(Run(run.folder), rows, tensors)
    run.compact()
    assert_same(run, rows, tensors)
    assert len(list((run.folder / "records").iterdir())) == 4
    assert len(list((run.folder / "scores").iterdir())) == 3


def test_merge_that_fails_leaves_the_unit_parts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, tensors = table(run), content(run)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parts, "_write_merged_records", fail)
        with pytest.raises(KeyboardInterrupt):
            run.compact()
    assert_same(run, rows, tensors)
    run.compact()
    assert_same(run, rows, tensors)


def test_compacted_run_grows(run: Run) -> None:
    run.compact()
    new = keep(run, 2, "new")
    rows, tensors = table(run), content(run)
    assert run.done(new)
    run.compact()
    assert_same(run, rows, tensors)
    assert len(list((run.folder / "records").iterdir())) == 4


def test_dropped_unit_leaves_the_others_of_its_checkpoint(run: Run) -> None:
    run.compact()
    rows = table(run)
    run.drop("truth002")
    assert not run.done("truth002")
    assert run.done("tone002")
    pd.testing.assert_frame_equal(table(run), rows[rows.unit != "truth002"].reset_index(drop=True))
    assert "truth002" not in run.headers()
    for concept in CONCEPTS:
        run.drop(f"{concept}003")
    assert len(list((run.folder / "records").iterdir())) == 3


@pytest.mark.parametrize(
    "index",
    [
        None,
        "",
        "[]",
        '{"version": 1}',
        '{"version": 99, "parts": {}}',
        '{"version": 1, "parts": {"records": {"at-x": 3}}}',
    ],
)
def test_index_is_only_a_cache(run: Run, index: str | None) -> None:
    run.compact()
    rows, headers = table(run), run.headers()
    path = run.folder / "index.json"
    assert json.loads(path.read_text())["parts"]["records"]
    if index is None:
        path.unlink()
    else:
        path.write_text(index)
    _forget(run)
    pd.testing.assert_frame_equal(table(run), rows)
    assert run.headers() == headers


def test_a_part_changed_behind_the_index_is_read_again(run: Run) -> None:
    run.compact()
    part = next((run.folder / "records").glob("at-*.parquet"))
    units = {unit for unit, name in parts.read_holders(run.folder).parts.items() if name == part.stem}
    part.unlink()
    os.utime(run.folder / "records", ns=(1, 1))
    assert not any(run.done(unit) for unit in units)


def test_saved_index_is_read_instead_of_headers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.compact()
    _forget(run)
    monkeypatch.setattr(parts, "_read_units", lambda *_: pytest.fail("a header was read"))
    assert len(run.headers()) == 6


def test_keep_reads_no_other_header(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.done("truth001")
    assert run.headers()
    monkeypatch.setattr(parts, "_read_units", lambda *_: pytest.fail("a header was read"))
    unit = keep(run, 9, "truth")
    assert run.done(unit)
    assert unit in run.headers()


def test_block_has_the_rows_of_its_records(tmp_path: Path) -> None:
    values = np.array([0.25, math.nan])
    block = RecordBlock(
        {
            "metric": "cosine",
            "value": values,
            "n": np.array([5, 0]),
            "note": pd.Categorical([None, "no direction"]),
            "step": pd.array([3, None], dtype="Int64"),
            "tokens": 2.5,
            "site": "resid.1",
            "layer": 1,
        },
        {"other_step": pd.Categorical(["1", "2"]), "it's": "x"},
    )
    shared = {"tokens": 2.5, "site": "resid.1", "layer": 1}
    rows = [
        Record("cosine", 0.25, n=5, step=3, coords={"other_step": "1", "it's": "x"}, **shared),
        Record("cosine", math.nan, note="no direction", coords={"other_step": "2", "it's": "x"}, **shared),
    ]
    for name, records in (("block", [block]), ("rows", rows), ("both", [rows[0], block])):
        write_records(tmp_path / name / "records" / "part.parquet", records)
    found = {name: Run(tmp_path / name).records() for name in ("block", "rows", "both")}
    pd.testing.assert_frame_equal(found["block"], found["rows"])
    assert len(found["both"]) == 3


def _forget(run: Run) -> None:
    """As a new process finds the run."""
    parts._holders.pop(run.folder, None)
    parts._headers.pop(run.folder, None)
