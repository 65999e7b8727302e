"""Transports of alerts: terminal, log, a command, a webhook, Trackio, Weights & Biases. A failure of one never stops a training."""

import importlib
import json
import logging
import math
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from ontogeny.alerts.detection import Alert
from ontogeny.errors import BadInput, escape_control, redact

AlertSink = Callable[[Alert], None]
SAVE_NOW = "save"
"""The action that asks a Trainer to save a checkpoint now."""
_COMMAND = "command:"
_TIMEOUT_SECONDS = 10
_LOG = logging.getLogger("ontogeny")
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}
_TRACKER_LEVELS = {"info": "INFO", "warning": "WARN", "critical": "ERROR"}


def alert_sinks(on_alert: str | AlertSink | Sequence[str | AlertSink]) -> tuple[AlertSink, ...]:
    """The transports of a list of names, addresses and functions; `save` is left to the callback.

    Args:
        on_alert: `terminal`, `log`, `trackio`, `wandb`, `save`, `command:…` (gets the alert as JSON on its standard input), an address
            that begins with http:// or https:// (gets it as the body of a POST), or a function of the alert; or several.

    Raises:
        BadInput: a name is unknown, or the package of a tracker is not installed.
    """
    several = [on_alert] if isinstance(on_alert, str) or callable(on_alert) else list(on_alert)
    return tuple(_sink(one) for one in several if one != SAVE_NOW)


def wants_save(on_alert: str | AlertSink | Sequence[str | AlertSink]) -> bool:
    """Whether `save` is among the actions."""
    return on_alert == SAVE_NOW or (not callable(on_alert) and SAVE_NOW in on_alert)


def _sink(name: str | AlertSink) -> AlertSink:
    if callable(name):
        return lambda alert: _call(name, alert)
    if name in _NAMED:
        return _NAMED[name]
    if name in ("trackio", "wandb"):
        if find_spec(name) is None:
            raise BadInput(f"`on_alert` must name an installed tracker, got {name}: run pip install {name}.")
        return lambda alert: _tracker_alert(name, alert)
    if name.startswith(("http://", "https://")):
        return lambda alert: _post(name, alert)
    if name.startswith(_COMMAND) and (words := _words(name.removeprefix(_COMMAND))):
        return lambda alert: _run(words, alert)
    raise BadInput(
        f"`on_alert` must be terminal, log, trackio, wandb, save, command:… or an address (http://…), got {redact(name)!r}: name one."
    )


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return []


def alert_content(alert: Alert) -> dict[str, Any]:
    """An alert as JSON-able content; a number that is not known is None."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        return None if isinstance(value, float) and math.isnan(value) else value

    content: dict[str, Any] = plain(asdict(alert))
    return {"text": f"{alert.severity}: {alert.line}", **content}


def _print(alert: Alert) -> None:
    print(escape_control(f"ontogeny: {alert.severity}: {alert.line}. {alert.advice}"), file=sys.stderr, flush=True)


def _log(alert: Alert) -> None:
    _LOG.log(_LEVELS[alert.severity], "%s (%s)", escape_control(alert.line), alert.advice)


def _call(function: AlertSink, alert: Alert) -> None:
    try:
        function(alert)
    except Exception as error:  # a function of the user's own
        _LOG.warning("a function failed for an alert: %s: %s", type(error).__name__, error)


def _run(words: Sequence[str], alert: Alert) -> None:
    def run() -> None:
        try:
            content = json.dumps(alert_content(alert), ensure_ascii=False)
            subprocess.run(words, input=content.encode(), timeout=_TIMEOUT_SECONDS, check=True, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            _LOG.warning("the command %s failed for an alert: %s", words[0], error)

    _in_background(run)


def _post(address: str, alert: Alert) -> None:
    def post() -> None:
        import requests

        try:
            answer = requests.post(address, json=alert_content(alert), timeout=_TIMEOUT_SECONDS)
            answer.raise_for_status()
        except requests.RequestException as error:
            _LOG.warning("an alert could not be sent: %s", redact(str(error)))

    _in_background(post)


def _in_background(work: Callable[[], None]) -> None:
    """Run without making the training wait; the process ends after it."""
    threading.Thread(target=work, name="ontogeny-alert").start()


def _tracker_alert(name: str, alert: Alert) -> None:
    try:
        tracker = importlib.import_module(name)
        level: Any = _TRACKER_LEVELS[alert.severity]
        levels = getattr(tracker, "AlertLevel", None)
        tracker.alert(
            title=f"{alert.concept} {alert.kind}",
            text=f"{alert.line}. {alert.advice}",
            level=getattr(levels, level, level),
        )
    except Exception as error:  # a tracker without a run, or without a network
        _LOG.warning("an alert could not be given to %s: %s", name, redact(str(error)))


_NAMED: dict[str, AlertSink] = {"terminal": _print, "log": _log}
