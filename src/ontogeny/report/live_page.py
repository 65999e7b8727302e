"""Live page of `ontogeny watch`: served on this machine only, it asks every two seconds for the points that changed."""

import base64
import contextlib
import hashlib
import json
import math
import re
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ontogeny.errors import BadInput
from ontogeny.jobs.watch.follow import FollowedRun

_HOST = "127.0.0.1"
_OWN_HOSTS = ("127.0.0.1", "localhost")


class LiveChanges:
    """Points and events of followed runs, numbered in the order in which they came or changed."""

    def __init__(self) -> None:
        self.session = secrets.token_hex(8)
        """Another one after a restart, so that an open page begins anew."""
        self.changes: dict[tuple[str, ...], tuple[int, Mapping[str, Any]]] = {}
        self.cursor = 0
        self.state = "waiting for the first checkpoint"
        self.lock = threading.Lock()

    def update(self, runs: Sequence[FollowedRun]) -> None:
        """Take over the state of the runs; what did not change keeps its number."""
        with self.lock:
            for run in runs:
                for name, content in _contents(run):
                    if self.changes.get(name, (0, None))[1] != content:
                        self.cursor += 1
                        self.changes[name] = self.cursor, content
            self.state = "; ".join(f"{run.name}: {len(run.done)} traced, {run.activity}" for run in runs)

    def after(self, cursor: int) -> dict[str, Any]:
        """The changes with a higher number, in their order."""
        with self.lock:
            new = sorted((number, content) for number, content in self._newer(cursor))
            return {
                "session": self.session,
                "cursor": self.cursor,
                "state": self.state,
                "changes": [content for _, content in new],
            }

    def _newer(self, cursor: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
        return ((number, content) for number, content in self.changes.values() if number > cursor)


def _contents(run: FollowedRun) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    for series in run.series:
        for point in series.points[series.inherited :]:
            content = {
                "kind": "point",
                "run": run.name,
                "concept": series.concept,
                "stage": point.stage,
                "step": point.step or 0,
                "checkpoint": point.checkpoint,
                "metric": {"auroc": "AUROC", "r2": "R²"}[point.metric],
                "value": _plain(point.score.value),
                "low": _plain(point.score.low),
                "high": _plain(point.score.high),
                "frozen": _plain(point.frozen.value),
                "floor": series.floor,
                "site": point.site,
            }
            yield ("point", run.name, series.concept, point.stage, point.checkpoint), content
    for alert in run.alerts:
        text = f"{alert.message}. {alert.advice}"
        name = f"{alert.kind} {alert.concept}"
        yield ("event", run.name, alert.stage, alert.checkpoint, name), _event(run, alert, alert.severity, name, text)
    for failure in run.failures:
        name = "not traced"
        event = _event(run, failure, "warning", name, f"not traced: {failure.reason}")
        yield ("event", run.name, failure.stage, failure.checkpoint, name), event


def _event(run: FollowedRun, at: Any, severity: str, what: str, text: str) -> Mapping[str, Any]:
    place = {"run": run.name, "stage": at.stage, "checkpoint": at.checkpoint}
    return {"kind": "event", **place, "severity": severity, "what": what, "text": text}


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


@contextlib.contextmanager
def live_page(changes: LiveChanges, port: int = 0) -> Iterator[str]:
    """Serve the page for the block; yields its address.

    Args:
        port: On this machine; 0 for a free one.

    Raises:
        BadInput: the port is in use or not allowed.
    """
    page = files("ontogeny.report").joinpath("live.html").read_text(encoding="utf-8")
    policy = _policy(page)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
            address = urlsplit(self.path)
            if host not in _OWN_HOSTS:  # a page of another site under a name that points here
                self.send_error(403)
            elif address.path == "/":
                self._send(page, "text/html; charset=utf-8")
            elif address.path == "/changes":
                given = parse_qs(address.query).get("after", ["0"])[0]
                after = int(given) if re.fullmatch(r"\d{1,12}", given) else 0
                self._send(json.dumps(changes.after(after), ensure_ascii=False), "application/json; charset=utf-8")
            else:
                self.send_error(404)

        def _send(self, text: str, kind: str) -> None:
            content = text.encode()
            self.send_response(200)
            headers = {
                "Content-Type": kind,
                "Content-Length": str(len(content)),
                "Content-Security-Policy": policy,
                "X-Content-Type-Options": "nosniff",
                "Cache-Control": "no-store",
            }
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            return

    try:
        server = ThreadingHTTPServer((_HOST, port), Handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInput(f"`port` must be free on this machine, got {port} ({reason}): set 0 for a free one.") from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://{_HOST}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def _policy(page: str) -> str:
    """A policy under which the page runs its own script only, and asks this server only."""
    (script,) = re.findall(r"(?s)<script>(.*?)</script>", page)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
