"""Retry transient Hub errors (429, 5xx, dropped connections), honouring Retry-After.

`huggingface_hub` already retries HEAD requests and 429 on files, and resumes interrupted files; it does not retry listings, or files
after 5xx or a reset. Only those are retried here, so that no wait is doubled.
"""

from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random

_T = TypeVar("_T")
_MAX_ATTEMPTS = 4
_MAX_WAIT_SECONDS = 300.0
"""Upper limit of a Retry-After; the Hub's windows are five minutes."""
_TRANSIENT_ERRORS = ("ReadError", "ReadTimeout", "RemoteProtocolError", "WriteError")
"""Exceptions of the HTTP library by name, since the library depends on the version of `huggingface_hub`."""
_backoff = wait_exponential(multiplier=0.5, max=8.0) + wait_random(0.0, 0.5)


def retry(call: Callable[[], _T]) -> _T:
    """Call the Hub, with up to four attempts if the error is transient."""
    return Retrying(
        retry=retry_if_exception(is_transient), wait=_wait, stop=stop_after_attempt(_MAX_ATTEMPTS), reraise=True
    )(call)


def is_transient(error: BaseException) -> bool:
    """Whether an error may disappear on retry and `huggingface_hub` has not retried it."""
    response = getattr(error, "response", None)
    if response is None:
        return type(error).__name__ in _TRANSIENT_ERRORS
    if response.request.method == "HEAD":
        return False
    is_file = "/api/" not in str(response.request.url)
    return response.status_code >= 500 or (response.status_code in (408, 429) and not is_file)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    seconds = _requested_wait(error)
    return _backoff(state) if seconds is None else min(seconds, _MAX_WAIT_SECONDS)


def _requested_wait(error: BaseException | None) -> float | None:
    """Wait requested by the Hub in seconds: `Retry-After`, or the reset time `t` of its `RateLimit` header."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    if (after := headers.get("retry-after", "")).isdigit():
        return float(after)
    fields = dict(part.strip().split("=", 1) for part in headers.get("ratelimit", "").split(";") if "=" in part)
    return float(fields["t"]) + 1 if fields.get("r") == "0" and fields.get("t", "").isdigit() else None
