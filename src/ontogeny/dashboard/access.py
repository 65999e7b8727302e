"""Access by token: a request without the token of the dashboard is refused.

The token is in the address that the command prints. A browser that has opened it gets a cookie, which its further requests carry:
scripts, pictures and the web socket have addresses of their own.
"""

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

_Scope = MutableMapping[str, Any]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_App = Callable[[_Scope, Any, _Send], Awaitable[None]]

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing is loaded from elsewhere. NiceGUI compiles its templates in the browser, and Vega its expressions, hence `unsafe-eval`."""
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class TokenAccess:
    """ASGI middleware: 403 for a request without the token, and headers that let a page load nothing from elsewhere.

    Args:
        app: The application.
        token: The token, in the query as `token` or in the cookie.
        cookie: Name of the cookie; browsers share the cookies of all ports of a machine.
    """

    def __init__(self, app: _App, token: str, cookie: str) -> None:
        self._app, self._token, self._cookie = app, token, cookie

    async def __call__(self, scope: _Scope, receive: Any, send: _Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[-1]
        in_query = self._matches(given)
        if not in_query and not self._matches(self._in_cookie(scope)):
            return await _refuse(scope, receive, send)
        cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/".encode() if in_query else None

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), *_HEADERS]
                message = {**message, "headers": headers + ([(b"set-cookie", cookie)] if cookie else [])}
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _matches(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _in_cookie(self, scope: _Scope) -> str:
        for name, value in scope.get("headers", ()):
            if name == b"cookie":
                try:
                    cookies = SimpleCookie(value.decode("latin-1"))
                except CookieError:
                    continue
                if self._cookie in cookies:
                    return cookies[self._cookie].value
        return ""


async def _refuse(scope: _Scope, receive: Any, send: _Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    text = b"Open the address that the command printed: this one lacks the token of the dashboard.\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": text})
