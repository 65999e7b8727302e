"""Installed trackers take the numbers of concepts, which are read back with their own readers; a tracker that is absent is a skip."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from ontogeny.alerts.trackers import TrackerLog

ROWS = {0: {"ontogeny/truth/score": 0.5, "ontogeny/truth/emerged": 0.0}, 8: {"ontogeny/truth/score": 0.875}}
EXPECTED = {"ontogeny/truth/score": {0: 0.5, 8: 0.875}, "ontogeny/truth/emerged": {0: 0.0}}
# Packages of others, which are on their way to new versions of their own packages.
pytestmark = pytest.mark.filterwarnings("ignore")


def needs(name: str) -> Any:
    return pytest.importorskip(name, reason=f"needs {name}, which is no part of the development packages")


def write(name: str, folder: Path) -> None:
    log = TrackerLog([name], folder)
    for step, values in ROWS.items():
        log.write(values, step)
    log.close()
    assert log.names == [name]


def test_tensorboard_has_the_numbers_in_the_folder_of_the_training(tmp_path: Path) -> None:
    needs("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "runs/today").mkdir(parents=True)
    write("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "runs/today"))
    events.Reload()
    assert {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]} == EXPECTED


def test_mlflow_has_the_numbers_in_the_run_of_the_training(tmp_path: Path) -> None:
    mlflow = needs("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    with mlflow.start_run() as run:
        write("mlflow", tmp_path)
    client = mlflow.MlflowClient()
    names = client.get_run(run.info.run_id).data.metrics
    got = {name: {m.step: m.value for m in client.get_metric_history(run.info.run_id, name)} for name in names}
    assert got == EXPECTED


def test_trackio_has_the_numbers_at_their_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    trackio = needs("trackio")
    trackio.init(project="tiny", embed=False)
    write("trackio", tmp_path)
    trackio.finish()
    (database,) = tmp_path.rglob("tiny.db")
    got: dict[str, dict[int, float]] = {}
    for step, metrics in sqlite3.connect(database).execute("select step, metrics from metrics"):
        for name, value in json.loads(metrics).items():
            got.setdefault(name, {})[step] = value
    assert got.pop("train/global_step") == {0: 0, 8: 8}
    assert got == EXPECTED


def test_wandb_has_the_numbers_beside_the_step_of_the_training(tmp_path: Path) -> None:
    wandb = needs("wandb")
    with wandb.init(mode="offline", project="tiny", dir=str(tmp_path)) as run:
        write("wandb", tmp_path)
        summary = dict(run.summary)
    assert summary["ontogeny/truth/score"] == 0.875
    assert summary["ontogeny/truth/emerged"] == 0.0
    assert summary["train/global_step"] == 8
