"""Transports of alerts and trackers, without a network: a server on this machine, a command, modules in their place."""

import json
import logging
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ontogeny.alerts.detection import Alert, ConceptPoint, Measured, WatchedSeries
from ontogeny.alerts.trackers import TrackerLog, tracker_values
from ontogeny.alerts.transports import alert_content, alert_sinks, wants_save
from ontogeny.errors import BadInput

ALERT = Alert(
    "collapses", "truth", "sft", 8, "checkpoint-8", "critical", Measured(0.5, 0.4, 0.6), 0.9, "truth collapses", "look"
)


def deliver(name: object) -> None:
    (sink,) = alert_sinks(name)  # type: ignore[arg-type]
    sink(ALERT)
    for thread in threading.enumerate():
        if thread.name == "ontogeny-alert":
            thread.join(10)


def test_webhook_gets_the_alert_as_json() -> None:
    got: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        deliver(f"http://127.0.0.1:{server.server_port}/hook")
        thread.join()
    assert got == [json.loads(json.dumps(alert_content(ALERT)))]
    assert got[0]["text"] == "critical: sft 8: truth collapses"


def test_failed_webhook_command_and_function_are_logged_without_their_secrets(caplog: pytest.LogCaptureFixture) -> None:
    deliver("http://user:hunter2@127.0.0.1:9/hook")
    deliver(f"command:{sys.executable} -c 'raise SystemExit(3)'")
    deliver(lambda alert: alert.missing)  # a function of the user's own
    assert len(caplog.records) == 3
    assert "hunter2" not in caplog.text


def test_command_gets_the_alert_on_its_standard_input(tmp_path: Path) -> None:
    path = tmp_path / "alert.json"
    code = f"import sys; open({str(path)!r}, 'w').write(sys.stdin.read())"
    deliver(f'command:{sys.executable} -c "{code}"')
    assert json.loads(path.read_text())["kind"] == "collapses"


def test_terminal_and_log(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    deliver("terminal")
    assert capsys.readouterr().err == "ontogeny: critical: sft 8: truth collapses. look\n"
    deliver("log")
    assert caplog.records[0].levelno == logging.ERROR


def test_tracker_alert(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    got: list[dict[str, object]] = []
    levels = types.SimpleNamespace(ERROR="error level")
    module = types.ModuleType("trackio")
    module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    module.alert, module.AlertLevel = lambda **alert: got.append(alert), levels  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trackio", module)
    deliver("trackio")
    assert got == [{"title": "truth collapses", "text": "sft 8: truth collapses. look", "level": "error level"}]
    module.alert = lambda **_: 1 / 0  # type: ignore[attr-defined]
    deliver("trackio")
    assert "could not be given to trackio" in caplog.text


def test_actions_are_checked() -> None:
    assert alert_sinks("save") == ()
    assert wants_save(["terminal", "save"])
    assert not wants_save(print)
    for name in ("pager", "command:", "command:'", "ftp://x"):
        with pytest.raises(BadInput, match="`on_alert` must be terminal, log"):
            alert_sinks(name)


def test_few_names_with_a_slash_go_to_the_trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    point = ConceptPoint("sft", 8, "checkpoint-8", Measured(0.8, 0.7, 0.9), "resid.1", frozen=Measured(0.6))
    one = WatchedSeries("truth.v2/é?", [point], 0.5)
    emerged = Alert("emerges", "truth.v2/é?", "sft", 4, "checkpoint-4", "info", Measured(), 0.6, "", "")
    values = tracker_values([one], [emerged], "sft")
    assert values == {
        "ontogeny/truth_v2_é_/score": 0.8,
        "ontogeny/truth_v2_é_/frozen_score": 0.6,
        "ontogeny/truth_v2_é_/emerged": 1.0,
    }
    got: list[tuple[str, object]] = []
    for name, call in (("wandb", "log"), ("trackio", "log"), ("mlflow", "log_metrics")):
        module = types.ModuleType(name)
        setattr(module, call, lambda given, step=None, name=name: got.append((name, (sorted(given), step))))
        module.active_run = lambda: "open"  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    log = TrackerLog(["wandb", "mlflow", "trackio", "none"], Path("out"))
    log.write(values, 8)
    names = sorted(values)
    with_step = [*names, "train/global_step"]
    assert got == [("wandb", (with_step, None)), ("trackio", (with_step, 8)), ("mlflow", (names, 8))]
    sys.modules["mlflow"].active_run = lambda: None  # type: ignore[attr-defined]
    TrackerLog(["mlflow"], Path("out")).write(values, 9)
    assert len(got) == 3


def test_a_tracker_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    module = types.ModuleType("wandb")
    module.log = lambda *_, **__: 1 / 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    log = TrackerLog(["wandb"], Path("out"))
    log.write({"a": 1.0}, 1)
    log.write({"a": 1.0}, 2)
    assert len(caplog.records) == 1
