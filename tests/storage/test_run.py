"""Run directory: units, ledger, directions, rollback."""

import errno
import importlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.records import Record
from ontogeny.storage.checksums import check_file, lost_files
from ontogeny.storage.files import DamagedPart
from ontogeny.storage.record_filter import sql_text
from ontogeny.storage.rollback import rollback_on_failure
from ontogeny.storage.run import Run, hold_records, query_records

ABOUT = {"concepts": [{"name": "truth"}, {"name": "it's"}], "lineage": {"name": "run"}}


def header(checkpoint: str, step: int | None, order: int, stage: str = "pretrain", concept: str = "truth") -> dict:
    return {
        "concept": concept,
        "checkpoint": checkpoint,
        "stage": stage,
        "step": step,
        "order": order,
        "position": "last",
        "sites": {"resid": ["resid.0", "resid.1"], "head": ["head.1.0"]},
        "methods": {"mass_mean": "unit", "logistic": "weight"},
    }


def keep(run: Run, unit: str, told: dict, size: float = 1.0) -> None:
    """A unit with one row and the directions of two fits."""
    row = Record(metric="auroc", value=0.5, n=4, unit=unit, concept=told["concept"], step=told["step"])
    directions = {
        f"{fit}/{part}/{what}": size
        * torch.arange(sites * d, dtype=torch.float32).view(sites, d, 1)[:, : 1 if what != "direction" else d]
        for fit in ("mass_mean", "logistic")
        for part, sites, d in (("resid", 2, 4), ("head", 1, 2))
        for what in ("direction", "bias", "facts/gap")
    }
    run.keep(unit, [row], header=told, directions=directions, scores={"mass_mean/resid": torch.zeros(2, 3, 1)})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path / "run")
    made.describe(ABOUT)
    keep(made, "a", header("checkpoint-1", 1, 1))
    keep(made, "b", header("checkpoint-2", 2, 2), size=2.0)
    keep(made, "c", header("final", None, 9), size=3.0)
    return made


def test_unit_is_done_once_its_part_exists(run: Run) -> None:
    assert run.done("a")
    assert not run.done("d")
    assert set(run.records().unit) == {"a", "b", "c"}
    assert len(run.records("step = 1")) == 1
    assert set(run.scores("a")) == {"mass_mean/resid"}
    assert set(run.directions("a", ["mass_mean/head/bias"])) == {"mass_mean/head/bias"}


def test_unit_of_new_weights_replaces_old_unit(run: Run) -> None:
    keep(run, "b2", header("checkpoint-2", 2, 2))
    assert set(run.records().unit) == {"a", "b2", "c"}
    assert {p.stem for kind in ("scores", "directions") for p in (run.folder / kind).iterdir()} == {"a", "b2", "c"}
    keep(run, "b3", header("checkpoint-2", 2, 2, stage="sft"))
    keep(run, "b4", header("checkpoint-2", 2, 2, concept="it's"))
    assert set(run.records().unit) == {"a", "b2", "b3", "b4", "c"}  # another stage or concept is another thing


def test_killed_write_leaves_no_old_rows(run: Run, monkeypatch) -> None:
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ontogeny.storage.run.write_records", killed)
        with pytest.raises(KeyboardInterrupt):
            keep(run, "b2", header("checkpoint-2", 2, 2))
    assert not run.done("b2")
    assert set(run.records().unit) == {"a", "c"}


def test_direction_by_site_step_and_method(run: Run) -> None:
    found = run.direction("truth", site="resid.1", step=2)
    assert found.vector.tolist() == [8.0, 10.0, 12.0, 14.0]
    assert (found.origin, str(found.site), found.scale, found.position) == (
        "truth@checkpoint-2/mass_mean",
        "resid.1",
        "unit",
        "last",
    )
    assert found.facts == {"gap": 8.0}
    assert (
        run.direction("truth", site="head.1.0", method="logistic").origin == "truth@final/logistic"
    )  # the last by order


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"concept": "trut"}, "no traced concept called 'trut'; did you mean truth?"),
        ({"concept": "truth", "step": 3}, "truth was not traced at step 3; known: 1, 2."),
        ({"concept": "truth", "stage": "sft"}, "no stage called 'sft'; known: pretrain."),
        ({"concept": "truth", "site": "mlp.1"}, "mlp.1 was not traced; known: resid.0, resid.1, head.1.0."),
        ({"concept": "truth", "site": "head.1.1"}, "head.1.1 was not traced"),
        (
            {"concept": "truth", "site": "resid.0", "method": "leac"},
            "no method in this run called 'leac'; known: logistic",
        ),
        (
            {"concept": "truth"},
            "truth has no best site yet (the trace has not finished): set `site`, such as resid.3.",
        ),
    ],
)
def test_missing_direction_is_an_error(run: Run, arguments: dict, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        run.direction(**arguments)
    assert words in str(caught.value)


def test_direction_of_unfinished_unit_is_ignored(run: Run) -> None:
    (run.folder / "records" / "c.parquet").unlink()
    assert run.direction("truth", site="resid.1").origin == "truth@checkpoint-2/mass_mean"


def test_forget_removes_superseded_summaries(run: Run) -> None:
    for unit in ("series-x-1", "series-x-2", "series-y-1"):
        run.keep(unit, [Record(metric="q", value=0.5, n=1, unit=unit)])
    run.forget("series-x", but="series-x-2")
    assert [run.done(unit) for unit in ("series-x-1", "series-x-2", "series-y-1")] == [False, True, True]


def test_ledger_appends_lines(run: Run) -> None:
    assert run.ledger() == []
    run.log({"checkpoint": "a", "forwards": 3})
    run.log({"checkpoint": "b", "path": Path("x")})
    assert run.ledger() == [{"checkpoint": "a", "forwards": 3}, {"checkpoint": "b", "path": "x"}]


def test_truncated_ledger_can_be_read_and_appended(run: Run) -> None:
    run.log({"checkpoint": "a"})
    with (run.folder / "ledger.jsonl").open("a") as handle:
        handle.write('{"checkpoint": "b", "forw')
    assert run.ledger() == [{"checkpoint": "a"}]
    run.log({"checkpoint": "c"})
    assert run.ledger() == [{"checkpoint": "a"}, {"checkpoint": "c"}]


def test_held_records_are_those_of_the_files_until_they_are_held_again(run: Run) -> None:
    folders, order = {"run": run.folder}, "from records order by unit"
    ask = hold_records(folders)
    assert ask(f"select * {order}").equals(query_records(folders, f"select * {order}"))
    keep(run, "d", header("checkpoint-4", 4, 4))
    assert len(ask(f"select unit {order}")) == 3
    assert len(hold_records(folders)(f"select unit {order}")) == 4
    for sql in ("create table x as select 1", "select * from read_text('run.json')", "selec"):
        with pytest.raises(BadInput):
            ask(sql)


def test_a_tensor_of_each_unit_comes_in_order_and_a_lost_one_is_told(run: Run) -> None:
    name, units = "logistic/head/bias", ["a", "c", "b", "a", "a", "c"]
    wanted = [run.directions(unit, [name])[name] for unit in units]
    assert all(map(torch.equal, run.each_tensor("directions", units, name), wanted))
    each = run.each_tensor("directions", ["a", "lost", "c"], name)
    assert torch.equal(next(each), wanted[0])
    with pytest.raises(DamagedPart, match="lost"):
        next(each)


def test_open_rejects_other_folders(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not a run directory"):
        Run.open(tmp_path)
    (tmp_path / "run.json").write_text('{"half')
    with pytest.raises(BadInput, match="cannot be read"):
        Run.open(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(ABOUT))
    assert Run.open(str(tmp_path)).about == ABOUT
    assert Run.open(tmp_path).records().empty


def test_names_that_run_imports_from_higher_floors_exist() -> None:
    """`Run.show` and `Runs.table` import them by string, which the import linter does not see."""
    assert callable(importlib.import_module("ontogeny.views").load_view)
    assert callable(importlib.import_module("ontogeny.findings.timeline").order_like_run)


def test_sql_text_escapes_quotes() -> None:
    assert sql_text("it's") == "'it''s'"


def state(folder: Path) -> dict[str, bytes | None]:
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(folder.parent.rglob("*"))}


@pytest.mark.parametrize("shape", ["no folder", "no parents", "empty folder", "a run"])
def test_rollback_restores_run_without_finished_unit(shape: str, run: Run, tmp_path: Path) -> None:
    place = {"no parents": tmp_path / "deep" / "er" / "out", "a run": run.folder}.get(shape, tmp_path / "out")
    if shape == "empty folder":
        place.mkdir()
    fresh, before = Run(place), state(run.folder)

    def session(unit: str, end: BaseException) -> None:
        with rollback_on_failure(fresh, ["d", "e"]):
            fresh.describe({"concepts": [unit]})
            fresh.keep(unit, [])
            keep(fresh, "untrained", header("untrained", None, -1))
            raise end

    with pytest.raises(BadInput):
        session("surface-1", BadInput("the texts are too long"))
    assert state(run.folder) == before
    with pytest.raises(KeyboardInterrupt):
        session("d", KeyboardInterrupt())
    assert fresh.done("d")  # one unit was finished: it stays
    assert fresh.about == {"concepts": ["d"]}


def test_run_can_be_moved(run: Run, tmp_path: Path) -> None:
    moved = Run.open(shutil.move(run.folder, tmp_path / "else [where]"))
    assert len(moved.records()) == 3
    assert moved.direction("truth", site="resid.0").scale == "unit"


@pytest.mark.parametrize("is_renamed", [False, True])
def test_failed_write_takes_its_checksum_back_unless_the_file_has_its_name(
    is_renamed: bool, run: Run, monkeypatch
) -> None:
    log, row, rename = run.folder / "checksums.jsonl", Record(metric="auroc", value=0.5, n=4), os.replace
    before = log.read_bytes()

    def full(source: Path, target: Path) -> None:
        if is_renamed:
            rename(source, target)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(BadInput, match="disk is full"):
            run.keep("late", [row])
    assert run.done("late") == is_renamed
    assert (log.read_bytes() != before) == is_renamed
    if is_renamed:
        check_file(run.folder / "records" / "late.parquet")
    run.keep("last", [row])
    assert lost_files(run.folder, "records") == []
