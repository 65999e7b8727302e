"""Charts in notebooks without a network: a picture at once, and the interactive chart where scripts run.

Altair's own output loads Vega from another host. Here each output holds the chart as SVG, and its specification; the first output of a
session holds the script as well, which replaces the pictures of all outputs. Charts that this package did not draw stay as they were.
"""

import uuid
from typing import Any

import altair as alt
import vl_convert

from ontogeny.views._page import embedded_json, vega_bundle

OFFLINE_KEY = "offline"
"""Key in the `usermeta` of a chart that this renderer shows."""
_RENDERER = "ontogeny"
_session: dict[str, Any] = {"script": False, "default": None}
"""Whether an output of this session holds the script, and the renderer for the charts of others."""
_EMBED = """
(() => {
  const place = document.getElementById("%s");
  if (!place || !window.ontogenyEmbed) return;
  const spec = JSON.parse(place.querySelector("script").textContent);
  const drawn = document.createElement("div");
  const actions = {export: {svg: true, png: true}, source: false, compiled: false, editor: false};
  window.ontogenyEmbed(drawn, spec, {renderer: "svg", ast: true, actions}).then(() => place.replaceChildren(drawn));
})();
"""


def use_offline_renderer() -> None:
    """Show the charts of this package by `offline_bundle`, unless the user has chosen a renderer of Altair."""
    if alt.renderers.active == "default":
        _session["default"] = alt.renderers.get()
        alt.renderers.register(_RENDERER, _render)
        alt.renderers.enable(_RENDERER)


def _render(spec: dict[str, Any], **metadata: Any) -> Any:
    meta = spec.get("usermeta")
    if isinstance(meta, dict) and meta.get(OFFLINE_KEY):
        first, _session["script"] = not _session["script"], True
        return offline_bundle(spec, with_script=first)
    return _session["default"](spec, **metadata)


def offline_bundle(spec: dict[str, Any], *, with_script: bool) -> dict[str, str]:
    """The MIME bundle of a chart: HTML with the picture, its specification, and the script if asked."""
    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    # A saved notebook may hold outputs of several sessions, which all count from 1.
    name = f"ontogeny-{uuid.uuid4().hex[:12]}"
    svg = vl_convert.vegalite_to_svg(spec, vl_version=version)
    # `vegaEmbed` is renamed, so that it does not replace that of another extension.
    script = vega_bundle().replace("window.vegaEmbed=", "window.ontogenyEmbed=")
    html = (
        f'<div id="{name}">{svg}<script type="application/json">{embedded_json(spec)}</script></div>'
        + (f"<script>{script}</script>" if with_script else "")
        + f"<script>{_EMBED % name}</script>"
    )
    return {"text/html": html, "text/plain": str(spec.get("description") or "a chart")}
