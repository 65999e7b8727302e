"""Dose and response of a steering vector: its effect on held-out questions at each alpha, with its null baselines.

Blue, with its 95 % interval: change of the log-odds of the continuation that shows the concept. Grey: 95 % of random directions of equal
norm; dashed lines: 95 % of fits on permuted labels; orange: a prompt without a vector. The ring marks the alpha that was chosen on other
questions. A vector inside the grey band has no effect beyond chance.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.steering_verdicts import EvaluatedVector, evaluated_vectors, prompt_baseline_rows
from ontogeny.findings.table import tidy_records
from ontogeny.findings.timeline import make_timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import inline_rows, multiples_or_blank, number_tooltips, panel_title
from ontogeny.views._layout import Chart, overlay
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, INK_COLOUR, MUTED_COLOUR

title = "Dose and response"
place = 11
needs = frozenset({"concept", "method", "metric", "control", "split", "value", "low", "high", "coords"})
METRICS = ("steering_effect", "chosen_alpha", "steering_works")
_KEY = (
    LegendEntry("the vector", "line", CATEGORY_COLOURS[0]),
    LegendEntry("its 95 % interval", "band", CATEGORY_COLOURS[0], opacity=0.2),
    LegendEntry("95 % of random directions", "band", MUTED_COLOUR, opacity=0.28),
    LegendEntry("95 % of permuted labels", "line", INK_COLOUR, (4, 3)),
    LegendEntry("a prompt without a vector", "line", CATEGORY_COLOURS[1]),
)
select = rows_with_metrics(*METRICS)


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    vectors = evaluated_vectors(table, make_timeline(records))
    panels = [_panel(v, table) for v in vectors if v.method != "ablate" and len(_own(v))]
    chart = multiples_or_blank(panels, title, table, "steering_effect (ontogeny evaluate makes them)")
    return with_legend(chart, *_KEY) if panels else chart


def _own(vector: EvaluatedVector) -> pd.DataFrame:
    return vector.effects[vector.effects["control"].eq("")].sort_values("alpha")


def _null(vector: EvaluatedVector, control: str) -> pd.DataFrame:
    """The interval of a null at each alpha; 0 at alpha 0."""
    rows = vector.effects[vector.effects["control"].eq(control)][["alpha", "low", "high"]].dropna()
    zero = pd.DataFrame([{"alpha": 0.0, "low": 0.0, "high": 0.0}]) if len(rows) else rows
    return pd.concat([rows, zero]).drop_duplicates("alpha").sort_values("alpha")


def _ticks(own: pd.DataFrame) -> alt.Axis:
    return alt.Axis(values=sorted(own["alpha"].unique().tolist()), format="~g", labelOverlap=True)


def _panel(vector: EvaluatedVector, table: pd.DataFrame) -> Any:
    own = _own(vector)
    x = alt.X("alpha:Q", title="alpha (times the vector)", scale=alt.Scale(nice=False), axis=_ticks(own))
    y = {"title": "effect (nats)", "axis": alt.Axis(tickCount=6)}
    layers: list[Any] = []
    random, permuted = _null(vector, "random_direction"), _null(vector, "shuffled_label")
    if len(random):
        grey = Chart(inline_rows(random)).mark_area(color=MUTED_COLOUR, opacity=0.28)
        layers.append(grey.encode(x=x, y=alt.Y("low:Q", **y), y2="high:Q"))
    for end in ("low", "high") if len(permuted) else ():
        dashed = Chart(inline_rows(permuted)).mark_line(color=INK_COLOUR, strokeDash=[4, 3], strokeWidth=1)
        layers.append(dashed.encode(x=x, y=alt.Y(f"{end}:Q", **y)))
    prompt = prompt_baseline_rows(table, vector)
    if len(prompt):
        rule = Chart(inline_rows(prompt.head(1), "value", "low", "high"))
        layers.append(rule.mark_rule(color=CATEGORY_COLOURS[1], strokeWidth=1.5).encode(y=alt.Y("value:Q", **y)))
    base = Chart(inline_rows(own, "alpha", "value", "low", "high")).encode(x=x)
    layers.append(base.mark_area(color=CATEGORY_COLOURS[0], opacity=0.2).encode(y=alt.Y("low:Q", **y), y2="high:Q"))
    line = base.mark_line(color=CATEGORY_COLOURS[0], strokeWidth=2, point={"size": 18, "color": CATEGORY_COLOURS[0]})
    layers.append(line.encode(y=alt.Y("value:Q", **y), tooltip=number_tooltips("alpha", "value", "low", "high")))
    ring = own[own["alpha"].eq(vector.alpha)]
    if len(ring):
        mark = Chart(inline_rows(ring, "alpha", "value")).mark_point(size=110, color=INK_COLOUR, strokeWidth=1.6)
        layers.append(mark.encode(x=x, y=alt.Y("value:Q", **y)))
    heading = panel_title(vector.name, vector.subtitle)
    return overlay(*layers).properties(width=CHART_WIDTH / 3 - 60, height=190, title=heading)
