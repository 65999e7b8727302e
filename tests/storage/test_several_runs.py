"""Several runs as one table: queries, charts, and agreement of emergence steps over seeds."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ontogeny
from ontogeny.cli.query import query_command
from ontogeny.errors import BadInput
from ontogeny.findings.finding import collect_findings
from ontogeny.findings.seed_agreement import seed_agreement_sentence, seed_agreements
from ontogeny.storage.run import Run, open_runs
from ontogeny.views import empty_reason
from tests.helpers import synthetic_records


def made(folder: Path, *, seed: int | None = 0, later: float = 1.0, stage: str | None = None) -> Path:
    """A run of the synthetic table; `later` moves the emergence steps of its concepts."""
    table = synthetic_records.table()
    rows = table[table["concept"].isin(["truth", "privacy"]) & table["head"].isna()]
    event = rows["metric"].eq("emergence_step")
    rows = rows.assign(train_seed=seed, lineage="tiny-neox")
    for column in ("value", "low", "high"):
        rows.loc[event, column] = rows.loc[event, column] * later
    if stage:
        rows.loc[rows["stage"].notna(), "stage"] = stage
    run = Run(folder)
    run.describe(synthetic_records.about())
    run.keep("all", synthetic_records.as_records(rows))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("runs")
    for seed in (0, 1, 2):
        made(home / f"seed{seed}", seed=seed, later=1 + 0.1 * seed)
    made(home / "late", seed=3, later=16.0)
    made(home / "again" / "seed0", seed=0)
    return home


def together(*folders: Path):
    return seed_agreements(collect_findings(open_runs(folders).table()))


def test_records_have_run_column(home: Path) -> None:
    both = ontogeny.open_runs([home / "seed0", home / "seed1"])
    rows = both.records()
    assert set(rows.run) == {"seed0", "seed1"}
    assert len(rows) == sum(len(Run.open(home / name).records()) for name in ("seed0", "seed1"))
    few = both.records("value > 0.5", metric="auroc", concept=["truth"], control=None)
    assert set(few.run) == {"seed0", "seed1"}
    assert set(few.metric) == {"auroc"}
    assert few.control.isna().all()
    found = both.query("select run, max(train_seed) as seed from records group by run order by run")
    assert found.seed.tolist() == [0, 1]


def test_names_and_steps_as_notebooks_give_them(home: Path) -> None:
    """A single name is no list of letters, and a step of NumPy is a number."""
    run = Run.open(home / "seed0")
    assert len(run.records(metric="auroc", step=np.int64(512))) == len(run.records(metric="auroc", step=512)) > 0
    assert (
        run.show("emergence", concepts="truth", stages="pretrain").to_dict()
        == run.show("emergence", concepts=["truth"], stages=["pretrain"]).to_dict()
    )
    for step in ("512", 0.5, True):
        with pytest.raises(BadInput, match="`step` must be a whole number"):
            run.show("layers", step=step)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="must be a list of run directories"):
        open_runs(str(home / "seed0"))
    with pytest.raises(BadInput, match="at least one run directory, got none"):
        open_runs([])
    with pytest.raises(BadInput, match="`fits` must be a list of names"):
        ontogeny.TraceSettings(fits="logistic")  # type: ignore[arg-type]


def test_equal_names_become_paths_and_duplicates_are_errors(home: Path) -> None:
    same = [home / "seed0", home / "again" / "seed0"]
    assert set(open_runs(same).members) == {str(folder) for folder in same}
    with pytest.raises(BadInput, match="each run must be named once"):
        open_runs([home / "seed0", home / "again" / ".." / "seed0"])


def test_runs_of_equal_lineage_and_seed_are_named_by_folder(home: Path) -> None:
    seeds = open_runs([home / "seed0", home / "seed1"]).table()
    assert set(seeds.lineage) == {"tiny-neox"}
    same = open_runs([home / "seed0", home / "again" / "seed0"]).table()
    assert set(same.lineage) == {str(home / "seed0"), str(home / "again" / "seed0")}
    assert len(collect_findings(same)) == 2 * len(collect_findings(Run.open(home / "seed0").records()))


def test_overlapping_emergence_in_every_seed(home: Path) -> None:
    truth, privacy = together(home / "seed0", home / "seed1", home / "seed2")
    assert (truth.concept, truth.runs, truth.emerged) == ("truth", 3, 3)
    assert truth.high / truth.low == pytest.approx(1.2)
    assert truth.doublings == pytest.approx(math.log2(1.2), rel=0.01)
    assert truth.shared is not None
    assert truth.shared[0] <= truth.low
    said = seed_agreement_sentence(truth)
    assert "all 3 runs" in said
    assert "no difference is shown" in said
    assert privacy.emerged == 0
    assert seed_agreement_sentence(privacy) == "is shown to emerge in none of 3 runs."


def test_late_run_is_reported(home: Path) -> None:
    truth = together(home / "seed0", home / "late")[0]
    assert truth.shared is None
    assert truth.doublings == pytest.approx(4, abs=0.02)
    assert "do not all overlap" in seed_agreement_sentence(truth)


def test_steps_of_different_stages_are_not_compared(home: Path, tmp_path: Path) -> None:
    truth = together(home / "seed0", made(tmp_path / "sft", seed=1, stage="sft"))[0]
    assert truth.shared is None
    assert "in different stages: pretrain, sft" in seed_agreement_sentence(truth)


def test_single_run_has_nothing_to_compare(home: Path) -> None:
    assert "nothing to compare" in seed_agreement_sentence(together(home / "seed0")[0])


def test_query_and_show_accept_several_runs(home: Path, tmp_path: Path, say) -> None:
    three = [home / f"seed{seed}" for seed in range(3)]
    sql = "select run, count(*) as rows from records group by run order by run"
    code, out, _ = say("query", *three, sql, "--json")
    assert code == 0
    assert [row["run"] for row in json.loads(out)] == ["seed0", "seed1", "seed2"]
    code, _, _ = say("show", *three, "seeds", "-o", tmp_path / "seeds.json")
    assert code == 0
    drawn = (tmp_path / "seeds.json").read_text()
    assert "tiny-neox, seed 2" in drawn
    assert "emerges in all 3 runs" in drawn
    code, _, err = say("show", home / "seed0")
    assert code == 2
    assert "needs a run directory and a view" in err


@pytest.mark.parametrize("view", ["emergence", "layers", "seeds", "surface", "dependence"])
def test_every_view_draws_several_runs(view: str, home: Path) -> None:
    chart = open_runs([home / "seed0", home / "seed1", home / "again" / "seed0"]).show(view)
    assert empty_reason(chart) is None


@pytest.mark.parametrize("rows", [0, 1, 5, 6, 7, 100, 200_000])
def test_ends_of_a_query_are_its_first_and_last_rows(rows: int, home: Path) -> None:
    runs = open_runs([home / "seed0"])
    sql = f"select i, 'row ' || i as name, nullif(i % 2, 0) as odd from range({rows}) t(i) order by i desc"
    ends, count = runs.query_ends(sql, 3)
    whole = runs.query(sql)
    shown = whole if rows <= 6 else pd.concat([whole.head(3), whole.tail(3)], ignore_index=True)
    assert count == rows
    pd.testing.assert_frame_equal(ends, shown, check_dtype=False)


def test_long_table_on_the_screen_is_cut_in_the_middle(home: Path, capsys: pytest.CaptureFixture) -> None:
    sql = "select i as number from range(1000) t(i) order by i"
    query_command([str(home / "seed0"), sql])
    out, err = capsys.readouterr()
    assert [int(n) for n in re.findall(r"\d+", out)] == [*range(30), *range(970, 1000)]
    assert "…" in out
    assert "1000 rows, of which 60 are shown; all: --all" in err
    query_command([str(home / "seed0"), sql], show_all=True)
    out, err = capsys.readouterr()
    assert [int(n) for n in re.findall(r"\d+", out)] == [*range(1000)]
    assert "…" not in out + err
