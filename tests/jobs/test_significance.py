"""Significance of the cells of a run: nulls that are kept, and rows in the order in which queries skip them."""

import json
from pathlib import Path

import duckdb
import torch

from ontogeny.data.concept import Concept
from ontogeny.dynamics.significance import _read_nulls, _write_nulls
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from ontogeny.storage.files import read_tensors, write_tensors
from tests.helpers.planted_lineages import rows, save_run, write


def test_nulls_that_are_kept_are_read_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "run" / "significance" / "truth.safetensors"
    g = torch.Generator().manual_seed(0)
    # Checkpoints may have other sites.
    nulls = {
        f"{unit}/logistic": {
            "maxima": torch.rand(7, generator=g),
            "observed": torch.rand(cells, generator=g),
            "p": torch.rand(cells, generator=g),
        }
        for unit, cells in (("a", 3), ("b", 5), ("c", 3))
    }
    path.parent.mkdir(parents=True)
    _write_nulls(path, nulls)
    kept = _read_nulls(path)
    assert list(kept) == list(nulls)
    assert all(torch.equal(kept[key][name], nulls[key][name]) for key in nulls for name in ("maxima", "observed", "p"))


def test_nulls_that_do_not_fit_their_header_are_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "truth.safetensors"
    null = {"maxima": torch.zeros(2), "observed": torch.zeros(3), "p": torch.zeros(3)}
    _write_nulls(path, {"a/logistic": null})
    tensors, header = read_tensors(path), json.loads(_header(path))
    for wrong in ({"cells": [4]}, {"cells": []}, {"keys": 3}, {"version": "0"}):
        write_tensors(path, tensors, header | wrong)
        assert _read_nulls(path) == {}
    assert _read_nulls(tmp_path / "none.safetensors") == {}


def test_rows_of_heads_come_last_in_a_summary(tmp_path: Path) -> None:
    save_run(tmp_path / "few", {1: 0.0, 2: 4.0})
    write(tmp_path / "one.csv", rows())
    settings = TraceSettings(sites="resid,head", resamples=100, permutations=100, untrained=False)
    concept = Concept.from_file(tmp_path / "one.csv")
    run = trace(Lineage.open(tmp_path / "few"), [concept], tmp_path / "run", settings)
    [part] = run.folder.glob("records/series-*.parquet")
    of_heads = duckdb.sql(f"select metric, head is not null from read_parquet('{part}')").fetchall()
    order = [is_head for _, is_head in of_heads]
    assert order == sorted(order)
    assert {metric for metric, is_head in of_heads if is_head} == {"p_familywise", "q"}


def _header(path: Path) -> str:
    content = path.read_bytes()
    table = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return str(table["__metadata__"]["ontogeny"])
