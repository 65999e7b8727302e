"""Every held-out item before and after steering, sorted by its log-likelihood under the unsteered model (arXiv:2410.17245).

Left: continuations that do not show the concept, most likely first; right: those that do, least likely first. Grey is the unsteered
model, blue the steered one: a good vector lowers the left side and raises the right side, most of all in the shaded quarters.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.steering_verdicts import EvaluatedVector, evaluated_vectors
from ontogeny.findings.table import coord_column, tidy_records
from ontogeny.findings.timeline import make_timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import inline_rows, multiples_or_blank, number_tooltips, panel_title
from ontogeny.views._layout import Chart, overlay
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, FAINT_COLOUR, MUTED_COLOUR

title = "Promoted and suppressed"
place = 14
needs = frozenset({"concept", "method", "metric", "control", "value", "coords"})
METRICS = ("item_nats", "promote", "suppress", "chosen_alpha", "steering_works")
KINDS = ["unsteered", "steered"]
_KEY = (
    LegendEntry("what steering moved", "upright", MUTED_COLOUR, opacity=0.5),
    LegendEntry("quarter that needs it most", "band", FAINT_COLOUR),
    LegendEntry("left: not the concept, right: the concept", "upright", MUTED_COLOUR, (3, 3)),
)
select = rows_with_metrics(*METRICS)


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    panels = [_panel(v, items) for v in evaluated_vectors(table, make_timeline(records)) if len(items := _items(v)) > 0]
    chart = multiples_or_blank(panels, title, table, "item_nats (ontogeny evaluate makes them)", columns=2)
    return with_legend(chart, *_KEY) if panels else chart


def _items(vector: EvaluatedVector) -> pd.DataFrame:
    """Both values of each item, in the order of the chart."""
    rows = vector.rows[vector.rows["metric"].eq("item_nats") & vector.rows["value"].notna()]
    rows = rows.assign(**{key: coord_column(rows, key) for key in ("item", "side", "prompt", "text")})
    key = ["item", "side", "prompt", "text"]
    before = rows[rows["control"].eq("unsteered")][[*key, "value"]].rename(columns={"value": "unsteered"})
    after = rows[rows["control"].eq("")][[*key, "value"]].rename(columns={"value": "steered"})
    both = before.merge(after, on=key)
    other = both[both["side"].eq("other")].sort_values("unsteered", ascending=False)
    matching = both[both["side"].eq("matching")].sort_values("unsteered")
    return pd.concat([other, matching]).reset_index(drop=True).reset_index(names="rank")


def _panel(vector: EvaluatedVector, items: pd.DataFrame) -> Any:
    left = int(items["side"].eq("other").sum())
    right = len(items) - left
    scale = alt.Scale(domain=[-0.5, len(items) - 0.5], nice=False)
    x = alt.X("rank:Q", title="item (rank)", scale=scale, axis=alt.Axis(tickCount=5))
    y = alt.Y("value:Q", title="log-likelihood (nats per token)", scale=alt.Scale(zero=False))
    quarters = pd.DataFrame({"from": [-0.5, left - 0.5], "to": [left / 4 - 0.5, left - 0.5 + right / 4]})
    band = Chart(inline_rows(quarters)).mark_rect(color=FAINT_COLOUR)
    band = band.encode(x=alt.X("from:Q", title="item (rank)"), x2="to:Q")
    rule = (
        Chart(inline_rows(pd.DataFrame({"rank": [left - 0.5]})))
        .mark_rule(color=MUTED_COLOUR, strokeDash=[3, 3])
        .encode(x=x)
    )
    long = items.melt(id_vars=["rank", "side", "prompt", "text"], value_vars=KINDS, var_name="kind", value_name="value")
    kinds = alt.Scale(domain=KINDS, range=[MUTED_COLOUR, CATEGORY_COLOURS[0]])
    colour = alt.Color("kind:N", scale=kinds, legend=alt.Legend(title=None, orient="bottom"))
    tooltip = ["side:N", "prompt:N", "text:N", "kind:N", *number_tooltips("value", digits=".2f")]
    marks = Chart(inline_rows(long)).mark_circle(size=16, opacity=0.85).encode(x=x, y=y, color=colour, tooltip=tooltip)
    moved = Chart(inline_rows(items, "rank", "unsteered", "steered")).mark_rule(color=MUTED_COLOUR, opacity=0.4)
    moved = moved.encode(x=x, y=alt.Y("unsteered:Q", title="log-likelihood (nats per token)"), y2="steered:Q")
    heading = panel_title(vector.name)
    heading.subtitle = [vector.subtitle, _scores(vector)]
    return overlay(band, rule, moved, marks).properties(width=CHART_WIDTH / 2 - 70, height=200, title=heading)


def _scores(vector: EvaluatedVector) -> str:
    """Promote and suppress scores over the quarter with the lowest baseline."""
    rows = vector.rows[vector.rows["value"].notna() & coord_column(vector.rows, "share").eq("0.25")]
    values = rows.drop_duplicates("metric").set_index("metric")["value"]
    scores = [f"{name} {values[name]:+.2f}".replace("-", "−") for name in ("promote", "suppress") if name in values]
    return f"lowest quarter: {', '.join(scores)} nats per token" if scores else ""
