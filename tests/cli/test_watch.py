"""`ontogeny watch` and `ontogeny doctor` on the command line, the live page and the live table."""

import io
import json
from pathlib import Path

import pytest
import requests
from rich.console import Console

from ontogeny.alerts.detection import Alert, ConceptPoint, Measured, WatchedSeries
from ontogeny.errors import BadInput
from ontogeny.jobs.watch.arrivals import FolderLook
from ontogeny.jobs.watch.follow import FollowedRun
from ontogeny.report.live_page import LiveChanges, live_page
from ontogeny.report.live_table import live_table
from ontogeny.storage.failures import Failure
from ontogeny.storage.run import Run
from tests.helpers.browser import open_chromium
from tests.helpers.command_line import Say
from tests.helpers.planted_lineages import rows, save_run, write


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("watch")
    for name in ("one", "two"):
        save_run(home / name, {1: 0.0} if name == "one" else {1: 8.0})
        (home / name / "checkpoint-1/trainer_state.json").write_text("{}")
    write(home / "coin.csv", rows(characters=24))
    return home


def test_watch_once_traces_several_folders_and_doctor_reads_them(
    home: Path, tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ontogeny.jobs.watch.follow._BRIEF_SECONDS", 0.01)
    given = [home / "one", home / "two", "-c", home / "coin.csv", "-o", tmp_path / "runs", "--sites", "resid"]
    said = say("watch", *given, "--probes", "logistic,mass_mean", "--once", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert [run["traced"] for run in found] == [["checkpoint-1"], ["checkpoint-1"]]
    said = say("doctor", tmp_path / "runs/two")
    assert said.code == 0
    assert "1 concept at 1 checkpoint: no alert." in said.out
    assert "alerts need 5" in said.out
    assert json.loads(say("doctor", tmp_path / "runs/two", "--json").out)["alerts"] == []
    assert say("doctor", tmp_path / "runs/two", "-c", "corn").err.endswith("did you mean coin?\n")
    assert say("doctor", tmp_path / "runs/two", "--angle", "400").err.startswith("ontogeny: --angle must lie between")


def test_errors_name_options(home: Path, tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ontogeny.jobs.watch.follow._BRIEF_SECONDS", 0.01)
    given = ["watch", home / "one", "-c", home / "coin.csv", "-o", tmp_path / "run"]
    assert "--interval must be above 0" in say(*given, "--interval", "0").err
    assert "--on-alert must be terminal" in say(*given, "--on-alert", "pager").err
    assert "only the callback of a Trainer" in say(*given, "--on-alert", "save").err
    assert "there is no folder" in say("watch", home / "no", *given[2:], "--once").err


def followed(folder: Path, steps: int = 3) -> FollowedRun:
    points = [
        ConceptPoint("sft", 2**i, f"checkpoint-{2**i}", Measured(0.5 + i / 8, 0.4 + i / 8, 0.6 + i / 8), "resid.1")
        for i in range(steps)
    ]
    alert = Alert("emerges", "<b>coin", "sft", 4, "checkpoint-4", "info", Measured(), 0.6, "coin emerges", "look")
    run = FollowedRun("a", FolderLook(folder, "sft"), Run(folder), [WatchedSeries("<b>coin", points, 0.5)], [alert])
    run.failures = [Failure("checkpoint-2", "sft", "deleted")]
    return run


def test_page_sends_changed_points_only(tmp_path: Path) -> None:
    changes, run = LiveChanges(), followed(tmp_path)
    changes.update([run])
    with live_page(changes) as address:
        first = requests.get(f"{address}changes", timeout=5).json()
        assert [change["kind"] for change in first["changes"]] == ["point"] * 3 + ["event"] * 2
        changes.update([run])
        again = requests.get(f"{address}changes?after={first['cursor']}", timeout=5).json()
        assert again["changes"] == []
        changes.update([followed(tmp_path, steps=4)])
        more = requests.get(f"{address}changes?after={first['cursor']}", timeout=5).json()
        assert [change["step"] for change in more["changes"]] == [8]
        page = requests.get(address, timeout=5)
        assert "script-src 'sha256-" in page.headers["Content-Security-Policy"]
        assert requests.get(f"{address}changes?after=x", timeout=5).json()["cursor"] == more["cursor"]
        assert requests.get(f"{address}etc/passwd", timeout=5).status_code == 404
        assert requests.get(address, headers={"Host": "evil.example"}, timeout=5).status_code == 403
        port = int(address.rsplit(":", 1)[1].strip("/"))
        with pytest.raises(BadInput, match="`port` must be free"), live_page(changes, port):
            pass


def test_live_table_shows_curves_alerts_and_failures(tmp_path: Path) -> None:
    run = followed(tmp_path)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(live_table([run]))
    text = console.export_text()
    assert "0.75 (0.65–0.85)" in text
    assert "<b>coin" in text
    assert "info: a sft 4: coin emerges" in text
    assert "not traced: a checkpoint-2: deleted" in text
    assert "▁▃▅" in text


def test_page_draws_points_and_takes_names_as_text(tmp_path: Path) -> None:
    changes = LiveChanges()
    changes.update([followed(tmp_path)])
    with live_page(changes) as address, open_chromium() as browser:
        page = browser.new_page()
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(address)
        page.locator("circle.dot").nth(2).wait_for(state="attached")
        assert page.locator("circle.dot").count() == 3
        assert "<b>coin" in page.locator("h2").first.inner_text()
        changes.update([followed(tmp_path, steps=4)])
        page.locator("circle.dot").nth(3).wait_for(state="attached")
        assert page.locator("#rows tr").count() == 2
        assert errors == []
        browser.close()
