"""HTML pages with charts that open from disk and load nothing.

The security policy of a page allows only two scripts, by their hashes, so names of concepts and notes are always text.
"""

import base64
import contextlib
import functools
import hashlib
import html
import importlib.metadata
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from ontogeny.storage.files import atomic_path

EMBED_SCRIPT = """
const specs = JSON.parse(document.getElementById("specs").textContent);
const actions = {export: {svg: true, png: true}, source: false, compiled: false, editor: false};
(async () => {
  for (const [name, spec] of Object.entries(specs)) {
    await vegaEmbed(document.getElementById("view-" + name), spec, {renderer: "svg", ast: true, actions});
  }
  document.body.dataset.drawn = Object.keys(specs).length;
})();
"""
"""Draws each chart of the element `specs` into the element of its name."""


def chart_page(spec: Mapping[str, Any], title: str) -> str:
    """A page with one chart."""
    bundle = vega_bundle()
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{content_security_policy(bundle, EMBED_SCRIPT)}">
<title>{html.escape(title)}</title>
</head>
<body>
<div id="view-chart"></div>
<script type="application/json" id="specs">{embedded_json({"chart": spec})}</script>
<script>{bundle}</script>
<script>{EMBED_SCRIPT}</script>
</body>
</html>
"""


@functools.cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and vega-embed in one script, in the version that the charts are written for.

    It takes 1.6 seconds to make, so the user's cache keeps it, under the versions and with the digest of its content.
    """
    import pooch

    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    file = Path(pooch.os_cache("ontogeny")) / f"vega-{importlib.metadata.version('vl-convert-python')}-{version}.js"
    with contextlib.suppress(OSError, ValueError):
        digest, _, script = file.read_bytes().decode().partition("\n")
        if digest == hashlib.sha256(script.encode()).hexdigest():
            return script
    script = (
        vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
        .replace("\r\n", "\n")
        .replace("</script", "<\\/script")
    )
    with contextlib.suppress(OSError):  # without a cache it is made again
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary:
            temporary.write_bytes(f"{hashlib.sha256(script.encode()).hexdigest()}\n{script}".encode())
    return script


def embedded_json(specs: Mapping[str, Any]) -> str:
    """JSON whose texts cannot end the script element that holds it."""
    text = json.dumps(specs, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return re.sub("[&<>\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)


def content_security_policy(*scripts: str) -> str:
    """A policy that lets a page run these scripts only and load nothing."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
