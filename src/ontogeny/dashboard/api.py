"""API of the dashboard: its endpoints in one FastAPI application, behind the token."""

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from ontogeny.dashboard.access import TokenAccess
from ontogeny.dashboard.assets import browser_files
from ontogeny.dashboard.endpoints.atlas import atlas_router
from ontogeny.dashboard.endpoints.charts import charts_router
from ontogeny.dashboard.endpoints.chat import chat_router
from ontogeny.dashboard.endpoints.records import records_router
from ontogeny.dashboard.endpoints.runs import runs_router
from ontogeny.dashboard.endpoints.texts import texts_router
from ontogeny.dashboard.shown_run import ShownRuns
from ontogeny.errors import BadInput

_CACHED = {"cache-control": "public, max-age=31536000, immutable"}
"""The name of a file of the browser holds the digest of its content."""


def make_api(shown: ShownRuns, token: str, *, port: int = 0) -> FastAPI:
    """The application: JSON under `/api`, the files of the browser under `/assets`; every request needs the token.

    Args:
        shown: The runs.
        token: The token of its addresses.
        port: Its port, which is a part of the name of the cookie.
    """
    app = FastAPI(title="ontogeny dashboard", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")
    app.state.runs = shown
    for router in (runs_router, atlas_router, charts_router, records_router, texts_router, chat_router):
        app.include_router(router, prefix="/api")
    app.add_api_route("/assets/{name}", _read_asset, include_in_schema=False)
    app.add_exception_handler(BadInput, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_values)
    app.add_middleware(TokenAccess, token=token, cookie=f"ontogeny-{port}")
    return app


def _read_asset(name: str) -> Response:
    files: Mapping[str, tuple[str, str]] = browser_files()
    if name not in files:
        return JSONResponse({"error": "there is no such file."}, 404)
    kind, content = files[name]
    return Response(content, media_type=kind, headers=_CACHED)


def _refuse(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


def _refuse_values(request: Request, error: Exception) -> Response:
    """One sentence about the first value of another type."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"] if part not in ("body", "query"))
    return JSONResponse({"error": f"`{name}` cannot be used: {first['msg']}; correct the request."}, 422)
