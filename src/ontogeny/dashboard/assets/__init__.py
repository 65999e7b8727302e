"""Files that a browser loads: the Vega bundle, the script of the charts and the style of the page."""

import functools
import hashlib
from importlib.resources import files

from ontogeny.views import vega_bundle

__all__ = ["asset_address", "asset_text", "browser_files"]

_KINDS = {
    "vega.js": "text/javascript",
    "dashboard.js": "text/javascript",
    "attention.js": "text/javascript",
    "chat.js": "text/javascript",
    "site.js": "text/javascript",
    "dashboard.css": "text/css",
}


@functools.cache
def browser_files() -> dict[str, tuple[str, str]]:
    """Media type and content of each file, by a name that holds the digest of its content."""
    return {_digest_name(name): (kind, asset_text(name)) for name, kind in _KINDS.items()}


@functools.cache
def asset_address(name: str) -> str:
    """The address of a file: vega.js, dashboard.js, attention.js, chat.js or dashboard.css."""
    return f"/assets/{_digest_name(name)}"


@functools.cache
def asset_text(name: str) -> str:
    """The content of a file."""
    return vega_bundle() if name == "vega.js" else files(__name__).joinpath(name).read_text(encoding="utf-8")


def _digest_name(name: str) -> str:
    stem, _, ending = name.partition(".")
    return f"{stem}.{hashlib.sha256(asset_text(name).encode()).hexdigest()[:12]}.{ending}"
