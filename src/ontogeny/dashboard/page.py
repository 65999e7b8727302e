"""Page of the dashboard: one selection of run, checkpoints, concept and site, which every panel reads and writes.

The selection is in the address of the page, so that an address shows the same thing again.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from nicegui import run as background
from nicegui import ui
from starlette.requests import Request

from ontogeny.dashboard.assets import asset_address
from ontogeny.dashboard.endpoints.charts import draw_ahead, draw_first, views_with_rows
from ontogeny.dashboard.selection import Selection, step_text
from ontogeny.dashboard.shown_run import ShownRun, ShownRuns
from ontogeny.dashboard.widget import Widget
from ontogeny.errors import BadInput
from ontogeny.findings.sentences import SCORE_LABELS
from ontogeny.sites import HEAD_PARTS
from ontogeny.views import View, load_views

_LOOK_AFTER = 0.5
"""Seconds after which views with rows are looked for: the first chart is drawn meanwhile."""
_REFRESH = 3.0
"""Seconds between two looks for new records."""
_Options = Callable[[], dict[str, Any]]


def register_page(runs: ShownRuns, token: str, *, ahead: bool = False) -> None:
    """Add the page to NiceGUI, at the address `/`.

    Args:
        runs: The runs.
        token: The token, which stays in the address.
        ahead: Whether the views of a finished run are drawn while a page shows something else.
    """

    @ui.page("/", title="ontogeny", dark=None)
    def dashboard(request: Request) -> None:
        query = dict(request.query_params)
        try:
            shown = runs[query["run"]] if query.get("run") else runs.first
            _Dashboard(runs, shown, query, token, ahead).build()
        except BadInput as error:
            _head()
            with ui.element("div").classes("dashboard"), ui.element("main"):
                Widget("notice", {"text": str(error), "problem": True})


def _head() -> None:
    ui.add_head_html(f'<link rel="stylesheet" href="{asset_address("dashboard.css")}">')
    ui.add_head_html(f'<script src="{asset_address("dashboard.js")}"></script>')
    for name in ("attention.js", "chat.js"):
        ui.add_head_html(f'<script src="{asset_address(name)}"></script>')


_WITHOUT_CHARTS = ("findings", "text", "chat", "attention", "records")


class _Dashboard:
    """The page of one browser tab."""

    def __init__(self, runs: ShownRuns, shown: ShownRun, query: dict[str, str], token: str, ahead: bool) -> None:
        self._runs, self._run, self._token, self._ahead = runs, shown, token, ahead
        self._described = shown.describe()
        self._chosen = Selection.from_query(query, self._described)
        self._version = shown.version()
        self._views = {view.name: view for view in load_views()}
        self._turn = 0
        self._drawable: frozenset[str] | None = shown.known("views")
        self._fixed: list[tuple[Widget, _Options]] = []
        self._in_panel: list[tuple[Widget, _Options]] = []

    # --- building ------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        _head()
        if self._chosen.panel not in _WITHOUT_CHARTS:  # asked for before the page has built its charts
            ui.add_head_html(f'<link rel="preload" as="script" href="{asset_address("vega.js")}">')
        if self._chosen.panel == "charts":
            threading.Thread(target=draw_first, args=(self._run, self._chosen.concept), name="first charts").start()
        self._dark = ui.dark_mode(None)
        with ui.element("div").classes("dashboard"):
            with ui.element("header"):
                with ui.element("div").classes("bar"):
                    ui.element("h1")._text = f"ontogeny · {self._described['lineage']}"
                    self._choice("run", lambda: list(self._runs.members), self._open_run)
                    self._choice(
                        "concept",
                        lambda: ["", *self._described["concepts"]],
                        self._changer("concept"),
                        all_of="all concepts",
                    )
                    self._choice("metric", lambda: list(self._described["metrics"]), self._changer("metric"))
                    self._choice("part", lambda: list(self._parts()), self._changer("part"))
                    self._choice(
                        "probe",
                        lambda: self._parts().get(self._chosen.part, []),
                        self._changer("method"),
                        field="method",
                    )
                    ui.element("span").classes("spring")
                    Widget("tools", {}, self._use_tool)
                self._add(self._fixed, "timeline", self._timeline_options, self._choose_checkpoint)
                self._add(
                    self._fixed, "navigation", self._navigation_options, lambda _, name: self._show_panel(str(name))
                )
            self._main = ui.element("main")
        self._fill_panel()
        ui.timer(0.01 if self._chosen.panel == "charts" else _LOOK_AFTER, self._look_for_views, once=True)
        ui.timer(_REFRESH, self._refresh)

    def _add(
        self,
        into: list[tuple[Widget, _Options]],
        kind: str,
        options: _Options,
        on_event: Callable[[str, Any], None] = lambda name, value: None,
    ) -> Widget:
        widget = Widget(kind, options(), on_event)
        into.append((widget, options))
        return widget

    def _choice(
        self,
        label: str,
        names: Callable[[], list[str]],
        on_choice: Callable[[str], None],
        *,
        all_of: str = "",
        field: str = "",
    ) -> None:
        def options() -> dict[str, Any]:
            known = names()
            offered = [{"value": name, "label": name or all_of} for name in known]
            return {"label": label, "options": offered, "value": getattr(self._chosen, field or label), "least": 2}

        self._add(self._fixed, "choice", options, lambda _, value: on_choice(str(value)))

    def _parts(self) -> dict[str, list[str]]:
        parts: dict[str, list[str]] = self._described["metrics"].get(self._chosen.metric, {})
        return parts

    def _timeline_options(self) -> dict[str, Any]:
        moments = self._described["checkpoints"]
        known = [(m["stage"], step_text(m["step"])) for m in moments]
        a, b = (self._chosen.stage, self._chosen.step), (self._chosen.other_stage, self._chosen.other_step)
        return {
            "checkpoints": [{**moment, "address": step_text(moment["step"])} for moment in moments],
            "ticks": self._described["ticks"],
            "a": known.index(a) if a in known else 0,
            "b": known.index(b) if b in known else None,
            "turn": self._turn,
        }

    def _navigation_options(self) -> dict[str, Any]:
        drawn = [view for view in self._views.values() if self._is_offered(view)]
        panels = [(name, label, "") for name, label in _PANELS.items()]
        panels += [(f"view-{view.name}", view.title, view.caption) for view in drawn]
        return {
            "panels": [{"name": name, "label": label, "title": title} for name, label, title in panels],
            "panel": self._chosen.panel,
        }

    def _is_offered(self, view: View) -> bool:
        return view.name in (self._drawable or ()) or self._chosen.panel == f"view-{view.name}"

    async def _look_for_views(self) -> None:
        """Offer the views that have rows; to look for them takes part of a second, so the page is shown first."""
        first = self._drawable is None
        self._drawable = await background.io_bound(views_with_rows, self._run) or frozenset()
        self._update(self._fixed)
        if first and self._chosen.panel == "charts":
            self._fill_panel()
        if self._ahead and self._described["finished"]:
            self._run.tool("ahead", self._draw_ahead)

    def _draw_ahead(self) -> threading.Thread:
        thread = threading.Thread(target=draw_ahead, args=(self._run,), name="charts")
        thread.start()
        return thread

    # --- events --------------------------------------------------------------------------------------------------------

    def _change(self, **changes: str) -> None:
        self._chosen = replace(self._chosen, **changes).fitted(self._described)
        ui.navigate.history.replace(f"/?{self._chosen.query(token=self._token)}")
        self._update(self._fixed)
        self._update(self._in_panel)

    def _update(self, widgets: list[tuple[Widget, _Options]]) -> None:
        for widget, options in widgets:
            widget.show(options())

    def _changer(self, field: str) -> Callable[[str], None]:
        return lambda value: self._change(**{field: value})

    def _open_run(self, name: str) -> None:
        if name in self._runs.members:
            ui.navigate.to(f"/?{replace(self._chosen, run=name).query(token=self._token)}")

    def _use_tool(self, name: str, value: Any) -> None:
        if name == "dark":
            self._dark.value = bool(value)

    def _choose_checkpoint(self, _: str, value: Any) -> None:
        moments = self._described["checkpoints"]
        which, index = value["which"], value["index"]
        self._turn = int(value.get("turn", 0))
        if index is not None and not 0 <= int(index) < len(moments):
            return
        stage, step = (
            ("", "") if index is None else (moments[int(index)]["stage"], step_text(moments[int(index)]["step"]))
        )
        self._change(**({"stage": stage, "step": step} if which == "a" else {"other_stage": stage, "other_step": step}))

    def _pick(self, name: str, value: Any) -> None:
        """A click on a mark of a chart chooses its concept."""
        if name == "pick" and value.get("concept") in self._described["concepts"]:
            self._change(concept=value["concept"])

    async def _refresh(self) -> None:
        """Draw again what has new records."""
        version = await background.io_bound(self._run.version)
        if version is None or version == self._version:
            return
        try:
            described = await background.io_bound(self._run.describe)
        except BadInput:
            return  # a job is writing: the next look finds its records
        if described is None:
            return
        self._described = described
        at_end = self._timeline_options()["a"] >= len(self._described["checkpoints"]) - 2
        self._version = version
        latest = self._described["checkpoints"][-1] if at_end and self._described["checkpoints"] else None
        self._change(**({"stage": latest["stage"], "step": step_text(latest["step"])} if latest else {}))
        await self._look_for_views()

    # --- panels ----------------------------------------------------------------------------------------------------------

    def _show_panel(self, name: str) -> None:
        if name != self._chosen.panel:
            self._change(panel=name)
            self._fill_panel()

    def _fill_panel(self) -> None:
        self._main.clear()
        self._in_panel = []
        name = self._chosen.panel
        build = {
            "findings": self._findings,
            "atlas": self._atlas,
            "records": self._records,
            "charts": self._all_charts,
            "text": self._text_lens,
            "attention": self._attention,
            "chat": self._chat,
            "bench": self._bench,
        }.get(name)
        with self._main:
            if build is not None:
                build()
            elif name.removeprefix("view-") in self._views:
                self._view(name.removeprefix("view-"), eager=True)
            else:
                Widget("notice", {"text": f"there is no panel {name}: choose one above.", "problem": True})

    def _address(self, path: str, run: ShownRun | None = None, /, **query: str) -> str:
        listed = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items() if value)
        version = self._version if run is None else run.version()
        return f"/api/runs/{quote((run or self._run).name, safe='')}{path}?{listed}&version={version}"

    def _findings(self) -> None:
        self._add(self._in_panel, "findings", lambda: {"src": self._address("/findings")})

    def _atlas(self) -> None:
        self._add(self._in_panel, "chart", lambda: self._atlas_options(""), self._pick)
        self._add(self._in_panel, "chart", lambda: self._atlas_options("/difference"), self._pick)
        for name in ("layers", "emergence"):
            self._view(name)

    def _atlas_options(self, of: str) -> dict[str, Any]:
        chosen = self._chosen
        if of and not chosen.other_step:
            return {"hidden": True}
        fixed = {"metric": chosen.metric, "part": chosen.part, "method": chosen.method}
        if chosen.part in HEAD_PARTS:
            fixed["concept"] = chosen.concept
        here = {"stage": chosen.stage, "step": chosen.step}
        if of:
            here |= {"other_stage": chosen.other_stage, "other_step": chosen.other_step}
        heads = (
            f", heads of {chosen.concept or next(iter(self._described['concepts']), '')}"
            if chosen.part in HEAD_PARTS
            else ""
        )
        what = f"B − A, {self._label('other_')} minus {self._label('')}" if of else self._label("")
        table = {"metric": chosen.metric, "site": chosen.part, "stage": chosen.stage}
        if float(chosen.step or 0) % 1 == 0:
            table["step"] = chosen.step
        before = f"{SCORE_LABELS.get(chosen.metric, chosen.metric)} at every layer{heads}: "
        # The chart asks for another checkpoint itself, before this page has heard of the step.
        rows = self._address(f"/atlas{of}/cells", **fixed)
        follow = {"rows": rows.partition("&version=")[0], "version": self._version, "title": before}
        return {
            "src": self._address(f"/atlas{of}", **fixed, **here),
            "key": self._address(f"/atlas{of}", **fixed),
            "rows": self._address(f"/atlas{of}/cells", **fixed, **here),
            "table": self._address("/records", **table),
            "vega": asset_address("vega.js"),
            "title": before + what,
            "turn": self._turn,
            **({} if of else {"follow": follow}),
            "brief": True,
            "eager": True,
        }

    def _label(self, which: str) -> str:
        at = getattr(self._chosen, f"{which}stage"), getattr(self._chosen, f"{which}step")
        moments = self._described["checkpoints"]
        return next((m["label"] for m in moments if (m["stage"], step_text(m["step"])) == at), "")

    def _view(self, name: str, *, eager: bool = False, run: ShownRun | None = None) -> None:
        def options() -> dict[str, Any]:
            query = {"concept": self._chosen.concept}
            if name == "heads" and float(self._chosen.step or 0) % 1 == 0:
                query |= {"stage": self._chosen.stage, "step": self._chosen.step}
            return {
                "src": self._address(f"/charts/{name}", run, **query),
                "table": self._address("/records", run, view=name, concept=self._chosen.concept),
                "vega": asset_address("vega.js"),
                "title": self._views[name].title,
                "eager": eager,
            }

        self._add(self._in_panel, "chart", options, self._pick)

    def _all_charts(self) -> None:
        for name in self._views:
            if name in (self._drawable or ()):
                self._view(name)
        if not self._drawable:
            known = self._drawable is not None
            Widget(
                "notice",
                {"text": "No view has rows in this run." if known else "Looking for the views that have rows …"},
            )

    def _text_lens(self) -> None:
        def options() -> dict[str, Any]:
            concept = self._chosen.concept or next(iter(self._described["concepts"]), "")
            listed: Mapping[str, Any] = next(
                (c for c in self._run.about.get("concepts", ()) if c.get("name") == concept), {}
            )
            classes = listed.get("classes") or ()
            return {
                "src": self._address("/texts"),
                "text": self._chosen.text,
                "concept": concept,
                "method": self._chosen.method if self._chosen.metric in SCORE_LABELS else "",
                "site": "",
                "positive": str(classes[1]) if len(classes) == 2 else "",
                "checkpoints": self._timeline_options()["checkpoints"],
                "a": self._timeline_options()["a"],
                "hint": f"Each token is read by the probes of {concept}. Choose another concept above.",
            }

        ui.element("h2")._text = "Text lens"
        self._add(self._in_panel, "lens", options, lambda name, text: self._change(text=str(text)))
        self._add(self._in_panel, "logitLens", lambda: self._text_at_checkpoint("/lens"))

    def _text_at_checkpoint(self, path: str) -> dict[str, Any]:
        chosen = self._chosen
        here = {"stage": chosen.stage, "step": chosen.step, "label": self._label("")}
        return {"src": self._address(path), "text": chosen.text, **here}

    def _attention(self) -> None:
        ui.element("h2")._text = "Attention"
        self._add(
            self._in_panel,
            "attention",
            lambda: self._text_at_checkpoint("/attention"),
            lambda name, text: self._change(text=str(text)),
        )

    def _chat(self) -> None:
        ui.element("h2")._text = "Chat"
        self._add(
            self._in_panel, "chat", lambda: self._with_models("chat"), lambda name, text: self._change(chat=str(text))
        )

    def _bench(self) -> None:
        ui.element("h2")._text = "Steering bench"
        self._add(
            self._in_panel,
            "bench",
            lambda: self._with_models("bench"),
            lambda name, text: self._change(bench=str(text)),
        )
        evaluated = self._evaluated_run()
        for name in _STEERING_VIEWS if evaluated is not None else ():
            self._view(name, run=evaluated)
        if evaluated is None:
            Widget("notice", {"text": _NO_EVALUATION})

    def _evaluated_run(self) -> ShownRun | None:
        """The run with effects of steering: this one if it has some, else another one that is open."""
        runs = [self._run, *(run for run in self._runs.members.values() if run is not self._run)]
        count = "select count(*) as n from records where metric = 'steering_effect'"
        return next((run for run in runs if run.result("effects", lambda run=run: int(run.query(count)["n"][0]))), None)

    def _with_models(self, field: str) -> dict[str, Any]:
        """Options of a panel whose state is a field of the selection, with the checkpoints that it asks."""
        chosen = self._chosen
        a = {"stage": chosen.stage, "step": chosen.step, "label": self._label("")}
        b = {"stage": chosen.other_stage, "step": chosen.other_step, "label": self._label("other_")}
        return {
            "base": f"/api/runs/{quote(self._run.name, safe='')}",
            "version": self._version,
            "state": getattr(chosen, field),
            "a": a,
            "b": b if chosen.other_step else None,
        }

    def _records(self) -> None:
        def options() -> dict[str, Any]:
            chosen = self._chosen
            return {"src": self._address("/records", concept=chosen.concept, metric=chosen.metric, site=chosen.part)}

        ui.element("h2")._text = "Records"
        self._add(self._in_panel, "table", options)


_STEERING_VIEWS = ("dose_response", "effect_cost", "alpha_grid", "samples")
_NO_EVALUATION = (
    "Open a run of `ontogeny evaluate` as well: its effects on held-out questions, nulls and costs are drawn here."
)
_PANELS = {
    "findings": "Findings",
    "atlas": "Atlas",
    "text": "Text lens",
    "chat": "Chat",
    "bench": "Steering bench",
    "attention": "Attention",
    "charts": "All charts",
    "records": "Records",
}
"""The panels that are not views."""
