"""Server of the dashboard: the endpoints and the page on this machine, behind a token."""

import contextlib
import functools
import secrets
import socket
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ontogeny.dashboard.api import make_api
from ontogeny.dashboard.assets import browser_files
from ontogeny.dashboard.endpoints.charts import views_with_rows
from ontogeny.dashboard.shown_run import ShownRuns
from ontogeny.errors import BadInput

HOST = "127.0.0.1"
"""Other machines cannot reach it."""


@dataclass(frozen=True)
class DashboardServer:
    """A dashboard that can be started, with the address at which a browser finds it."""

    address: str
    app: Any
    """Its ASGI application."""
    bound: socket.socket
    runs: ShownRuns

    def serve(self, on_start: Callable[[], None] = lambda: None) -> None:
        """Answer until it is interrupted or stopped.

        Args:
            on_start: Called once when it answers.
        """

        def started() -> None:
            on_start()
            threading.Thread(target=self._look_for_views, name="views").start()

        self._server.on_start = started
        try:
            self._server.run([self.bound])
        finally:
            self.runs.close()

    def _look_for_views(self) -> None:
        """Look for the views of the first run while a browser opens its page, which then need not wait for it."""
        with contextlib.suppress(BadInput):  # a job is writing: the page looks again
            views_with_rows(self.runs.first)

    def stop(self) -> None:
        """Let `serve`, in another thread, return."""
        self._server.should_exit = True

    @functools.cached_property
    def _server(self) -> Any:
        import uvicorn

        class Server(uvicorn.Server):
            on_start: Callable[[], None]

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                self.on_start()

        return Server(uvicorn.Config(self.app, log_level="warning", ws_max_size=2**24, timeout_graceful_shutdown=1))


def make_server(runs: ShownRuns, *, port: int = 8017, token: str | None = None, ahead: bool = False) -> DashboardServer:
    """A dashboard of some runs; one for each process.

    Args:
        runs: The runs.
        port: Port; 0 for any that is free.
        token: Token of its address; by default a new one.
        ahead: Whether the views of a finished run are drawn while a page shows something else.

    Raises:
        BadInput: NiceGUI is not installed, or the port is in use.
    """
    try:
        from nicegui import ui
    except ImportError:
        raise BadInput("the dashboard needs NiceGUI: install it by `pip install 'ontogeny[dashboard]'`.") from None
    from ontogeny.dashboard.page import register_page

    runs.first.describe()  # before the address is printed, so that the first page is fast
    browser_files()
    bound = _bind(port)
    port, token = bound.getsockname()[1], token or secrets.token_urlsafe(24)
    app = make_api(runs, token, port=port)
    register_page(runs, token, ahead=ahead)
    ui.run_with(
        app, title="ontogeny", dark=None, tailwind=False, show_welcome_message=False, binding_refresh_interval=None
    )
    app.router.lifespan_context = _without_warnings(app.router.lifespan_context)
    return DashboardServer(f"http://{HOST}:{port}/?token={token}", app, bound, runs)


def _without_warnings(lifespan: Any) -> Any:
    """The start of the application without warnings: NiceGUI looks at all objects in memory, deprecated ones of torch among them."""

    @asynccontextmanager
    async def quiet(app: Any) -> AsyncIterator[Any]:
        context = lifespan(app)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            state = await context.__aenter__()
        try:
            yield state
        finally:
            await context.__aexit__(None, None, None)

    return quiet


def _bind(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
    except OSError as error:
        bound.close()
        raise BadInput(
            f"`port` must be free, got {port} ({error.strerror}): name another one, or 0 for any that is free."
        ) from None
    return bound
