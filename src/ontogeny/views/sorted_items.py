"""Every held-out item before and after steering, sorted by how much the unsteered model needs it: where does the vector act?

Left, continuations that do not show the concept, the likeliest first; right, those that do, the least likely first (arXiv:2410.17245).
Blue is the unsteered model, orange the steered one: a good vector is below on the left and above on the right, most of all in the
shaded quarters.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.steering_verdicts import EvaluatedVector, evaluated_vectors
from ontogeny.findings.table import coord_column, tidy_records
from ontogeny.findings.timeline import make_timeline
from ontogeny.views._chart_parts import blank_chart, inline_rows, missing_rows_reason, panel_title, small_multiples
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, FAINT_COLOUR, MUTED_COLOUR

title = "Promoted and suppressed"
place = 14
needs = frozenset({"concept", "method", "metric", "control", "value", "coords"})
METRICS = ("item_nats", "promote", "suppress", "chosen_alpha", "steering_works")
KINDS = ["unsteered", "steered"]


def select(records: pd.DataFrame) -> pd.DataFrame:
    return records[records["metric"].isin(METRICS)]


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    drawn = [_panel(v, items) for v in evaluated_vectors(table, make_timeline(records)) if len(items := _items(v)) > 0]
    if not drawn:
        return blank_chart(title, missing_rows_reason(table, "item_nats (ontogeny evaluate makes them)"))
    return small_multiples(drawn, columns=2)


def _items(vector: EvaluatedVector) -> pd.DataFrame:
    """Both numbers of each item, in the order of the picture."""
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
    x = alt.X(
        "rank:Q",
        title="item (rank)",
        scale=alt.Scale(domain=[-0.5, len(items) - 0.5], nice=False),
        axis=alt.Axis(tickCount=5),
    )
    y = alt.Y("value:Q", title="log-likelihood (nats per token)", scale=alt.Scale(zero=False))
    quarters = pd.DataFrame(
        [
            {"from": -0.5, "to": left / 4 - 0.5},
            {"from": left - 0.5, "to": left - 0.5 + right / 4},
        ]
    )
    band = alt.Chart(inline_rows(quarters)).mark_rect(color=FAINT_COLOUR)
    band = band.encode(x=alt.X("from:Q", title="item (rank)"), x2="to:Q")
    rule = (
        alt.Chart(inline_rows(pd.DataFrame({"rank": [left - 0.5]})))
        .mark_rule(color=MUTED_COLOUR, strokeDash=[3, 3])
        .encode(x=x)
    )
    long = items.melt(id_vars=["rank", "side", "prompt", "text"], value_vars=KINDS, var_name="kind", value_name="value")
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=KINDS, range=[CATEGORY_COLOURS[0], CATEGORY_COLOURS[1]]),
        legend=alt.Legend(title=None, orient="bottom"),
    )
    told = ["side:N", "prompt:N", "text:N", "kind:N", alt.Tooltip("value:Q", format=".2f")]
    marks = alt.Chart(inline_rows(long)).mark_circle(size=16, opacity=0.85).encode(x=x, y=y, color=colour, tooltip=told)
    moved = alt.Chart(inline_rows(items, "rank", "unsteered", "steered")).mark_rule(color=MUTED_COLOUR, opacity=0.4)
    moved = moved.encode(x=x, y=alt.Y("unsteered:Q", title="log-likelihood (nats per token)"), y2="steered:Q")
    named = panel_title(vector.name)
    named.subtitle = [vector.subtitle, _scores(vector)]
    return alt.layer(band, rule, moved, marks).properties(width=CHART_WIDTH / 2 - 70, height=200, title=named)


def _scores(vector: EvaluatedVector) -> str:
    """Promote and suppress over the neediest quarter."""
    rows = vector.rows[vector.rows["value"].notna() & coord_column(vector.rows, "share").eq("0.25")]
    values = rows.drop_duplicates("metric").set_index("metric")["value"]
    said = [f"{name} {values[name]:+.2f}".replace("-", "−") for name in ("promote", "suppress") if name in values]
    return f"neediest quarter: {', '.join(said)} nats per token" if said else ""
