"""Static export of a dashboard: one page that opens from disk, with the answers of the endpoints inside.

It holds the findings, the atlas of every score at every checkpoint, the views, text lens, logit lens and attention of given texts, and
given chats with their gauges.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ontogeny.dashboard.assets import asset_text
from ontogeny.dashboard.atlas import atlas_cells, cell_values, draw_atlas
from ontogeny.dashboard.chat_options import ChatOptions
from ontogeny.dashboard.endpoints.charts import read_chart, views_with_rows
from ontogeny.dashboard.endpoints.runs import read_findings
from ontogeny.dashboard.selection import Selection, step_text
from ontogeny.dashboard.shown_run import ShownRun
from ontogeny.errors import BadInput
from ontogeny.findings.finding import SCORE_METRICS
from ontogeny.sites import HEAD_PARTS
from ontogeny.storage.files import atomic_path
from ontogeny.storage.run import check_output
from ontogeny.views import content_security_policy, embedded_json, load_views, vega_bundle


def export_site(
    shown: ShownRun,
    out: Path,
    texts: Sequence[str] = (),
    chats: Sequence[Sequence[str]] = (),
    options: ChatOptions | None = None,
) -> Path:
    """Write a run as one folder with a page that opens from disk and loads nothing; returns the page.

    Args:
        shown: The run.
        out: The folder; it is made.
        texts: Texts that are read by the probes of every concept of two classes at every checkpoint.
        chats: The user's turns of conversations that are held at every checkpoint, as it is and with each readable gauge that is on by
            default held at each class.
        options: Of the chats.

    Raises:
        BadInput: `out` is a file or a part of a run, or a text or a chat cannot be read.
    """
    if out.exists() and not out.is_dir():
        raise BadInput(f"`out` must be a folder, got the file {out}: name another one.")
    page = out / "index.html"
    check_output(page)
    described = shown.describe()
    site, data = _site(shown, described, texts, chats, options or ChatOptions())
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(page) as temporary:
        temporary.write_text(site_page(described["lineage"], site, data), encoding="utf-8", newline="\n")
    return page


def _site(
    shown: ShownRun,
    described: Mapping[str, Any],
    texts: Sequence[str],
    chats: Sequence[Sequence[str]],
    options: ChatOptions,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Choices of the page, and the answers by address."""
    data: dict[str, Any] = {"findings": read_findings(shown)}
    metrics = [name for name in SCORE_METRICS if name in described["metrics"]]
    for metric in metrics:
        for part in described["metrics"][metric]:
            data |= _atlas(shown, described, metric, part)
    panels = [{"name": "findings", "label": "Findings", "title": ""}]
    panels += [{"name": "atlas", "label": "Atlas", "title": ""}] if metrics else []
    if texts or chats:
        # Torch takes seconds to load, and a page without a model needs none.
        from ontogeny.dashboard.export_models import chat_answers, text_answers

        if texts:
            panels += [{"name": "text", "label": "Text lens", "title": ""}]
            panels += [{"name": "attention", "label": "Attention", "title": ""}]
            data |= text_answers(shown, described, texts)
        if chats:
            panels.append({"name": "chat", "label": "Chat", "title": ""})
            data |= chat_answers(shown, described, chats, options)
    drawable = views_with_rows(shown)
    for view in load_views():
        if view.name in drawable and (chart := read_chart(shown, view.name))["tabs"]:
            data[f"charts/{view.name}"] = chart
            panels.append({"name": view.name, "label": view.title, "title": view.caption})
    checkpoints = [{**moment, "address": step_text(moment["step"])} for moment in described["checkpoints"]]
    parts = {metric: list(described["metrics"][metric]) for metric in metrics}
    site = {
        "described": {**described, "checkpoints": checkpoints, "metrics": {}},
        "metrics": metrics,
        "parts": parts,
        "panels": panels,
        "texts": list(texts),
        "chats": [list(turns) for turns in chats],
    }
    return site, data


def _atlas(shown: ShownRun, described: Mapping[str, Any], metric: str, part: str) -> dict[str, Any]:
    data: dict[str, Any] = {}
    first = Selection(metric=metric, part=part).fitted(described)
    for concept in described["concepts"] if part in HEAD_PARTS else [""]:
        chosen = replace(first, concept=concept)
        cells = atlas_cells(shown, chosen)
        if not len(cells.rows) or not cells.rows["value"].notna().any():
            continue
        of = f"{metric}/{part}{f'/{concept}' if concept else ''}"
        spec = draw_atlas(shown, chosen).to_dict(validate=False)
        data[f"atlas/{of}"] = {
            "name": "atlas",
            "title": "",
            "caption": "",
            "tabs": [{"label": "", "spec": spec}],
            "reason": "",
        }
        for index, moment in enumerate(described["checkpoints"]):
            rows = cells.at(moment["stage"], step_text(moment["step"]))
            data[f"cells/{of}/{index}"] = {"cells": cell_values(rows)}
    return data


def site_page(name: str, site: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """A page that shows answers which it holds.

    Args:
        name: Of what is shown.
        site: What the shell offers: `described`, `metrics`, `parts`, `panels`, `texts`, `chats`.
        data: Answers of the endpoints by address.
    """
    scripts = [
        vega_bundle(),
        _SETUP,
        *(asset_text(f"{name}.js") for name in ("dashboard", "attention", "chat", "site")),
    ]
    marked = "\n".join(f"<script>{script}</script>" for script in scripts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{content_security_policy(*scripts)}">
<title>ontogeny · {html.escape(name)}</title>
<style>{asset_text("dashboard.css")}</style>
</head>
<body>
<script type="application/json" id="site">{embedded_json(site)}</script>
<script type="application/json" id="data">{embedded_json(data)}</script>
{marked}
</body>
</html>
"""


_SETUP = """
window.ontogenySite = JSON.parse(document.getElementById("site").textContent);
window.ontogenyData = JSON.parse(document.getElementById("data").textContent);
"""
