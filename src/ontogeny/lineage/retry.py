"""Waiting out a Hub that fails for a moment: 429, 5xx and cut connections are tried again, by the clock the Hub names.

`huggingface_hub` already waits for the HEAD of a file, for 429 on a file, and resumes a file that was cut; it neither repeats a
listing nor a file that answers 5xx or is reset. Only those are repeated here, so that no wait is doubled.
"""

from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random

_T = TypeVar("_T")
_MAX_ATTEMPTS = 4
_MAX_WAIT_SECONDS = 300.0
"""Seconds that a Retry-After is obeyed; the Hub's windows are five minutes."""
_TRANSIENT_ERRORS = ("ReadError", "ReadTimeout", "RemoteProtocolError", "WriteError")
"""Names of the HTTP library's exceptions; the library changes with the version of `huggingface_hub`."""
_backoff = wait_exponential(multiplier=0.5, max=8.0) + wait_random(0.0, 0.5)


def retry(call: Callable[[], _T]) -> _T:
    """The result of a call to the Hub, tried up to four times where the failure may be gone in a moment."""
    return Retrying(
        retry=retry_if_exception(is_transient), wait=_wait, stop=stop_after_attempt(_MAX_ATTEMPTS), reraise=True
    )(call)


def is_transient(error: BaseException) -> bool:
    """Whether it may be gone in a moment, and nobody has waited for that yet."""
    response = getattr(error, "response", None)
    if response is None:
        return type(error).__name__ in _TRANSIENT_ERRORS
    if response.request.method == "HEAD":
        return False
    asked_for_file = "/api/" not in str(response.request.url)
    return response.status_code >= 500 or (response.status_code in (408, 429) and not asked_for_file)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    told = _requested_wait(error)
    return min(told, _MAX_WAIT_SECONDS) if told is not None else _backoff(state)


def _requested_wait(error: BaseException | None) -> float | None:
    """Seconds that the Hub asks to wait: `Retry-After`, or the reset time `t` of its `RateLimit` header."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    if (after := headers.get("retry-after", "")).isdigit():
        return float(after)
    fields = dict(part.strip().split("=", 1) for part in headers.get("ratelimit", "").split(";") if "=" in part)
    return float(fields["t"]) + 1 if fields.get("r") == "0" and fields.get("t", "").isdigit() else None
