"""Effect against side effect of each steering vector: change on held-out questions against KL on neutral text.

Each point is one alpha (labelled), each line one method; the cost is on a square-root axis, since it grows with alpha squared.
Higher is more of the concept; further right is further from the unsteered model. Compare vectors along a vertical line, at equal cost:
the diamonds lie on the dotted one.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.steering_verdicts import METHOD_LABELS, EvaluatedVector, evaluated_vectors
from ontogeny.findings.table import coord_column, tidy_records
from ontogeny.findings.timeline import make_timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import colour_by_name, inline_rows, multiples_or_blank, number_tooltips, panel_title
from ontogeny.views._layout import Chart, overlay
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._theme import CHART_WIDTH, MUTED_COLOUR

title = "Effect against side effect"
place = 12
needs = frozenset({"concept", "method", "metric", "control", "split", "value", "coords"})
METRICS = ("steering_effect", "neutral_kl", "effect_at_equal_kl", "chosen_alpha", "steering_works")
_KEY = (
    LegendEntry("one alpha of a method", "dot", MUTED_COLOUR),
    LegendEntry("its 95 % interval", "upright", MUTED_COLOUR, opacity=0.6),
    LegendEntry("equal cost", "upright", MUTED_COLOUR, (2, 3)),
    LegendEntry("effect there", "diamond", MUTED_COLOUR),
)
select = rows_with_metrics(*METRICS)


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    vectors = evaluated_vectors(table, make_timeline(records))
    places: dict[str, list[EvaluatedVector]] = {}
    for vector in vectors:
        if len(_points(vector)):
            places.setdefault(_place(vector), []).append(vector)
    names = list(dict.fromkeys(map(_method, vectors)))
    panels = [_panel(name, several, names) for name, several in places.items()]
    chart = multiples_or_blank(panels, title, table, "steering_effect and neutral_kl (ontogeny evaluate makes them)")
    return with_legend(chart, *_KEY) if panels else chart


def _method(vector: EvaluatedVector) -> str:
    return METHOD_LABELS.get(vector.method, vector.method)


def _place(vector: EvaluatedVector) -> str:
    """Concept and checkpoint."""
    return " · ".join(word for word in vector.name.split(" · ") if word != _method(vector))


def _points(vector: EvaluatedVector) -> pd.DataFrame:
    effect = vector.effects[vector.effects["control"].eq("")][["alpha", "value", "low", "high"]]
    cost = vector.rows[vector.rows["metric"].eq("neutral_kl") & vector.rows["choice"].eq(vector.chosen)]
    cost = cost[["alpha", "value"]].rename(columns={"value": "kl"}).dropna().drop_duplicates("alpha")
    return effect.merge(cost, on="alpha").sort_values("alpha").assign(name=_method(vector))


def _equal(vector: EvaluatedVector) -> pd.DataFrame:
    own = vector.rows["metric"].eq("effect_at_equal_kl") & vector.rows["control"].eq("")
    rows = vector.rows[own & vector.rows["value"].notna()]
    kl = pd.to_numeric(coord_column(rows, "kl"), errors="coerce")
    return rows[["value"]].assign(kl=kl, name=_method(vector)).dropna()


def _panel(name: str, several: list[EvaluatedVector], names: list[str]) -> Any:
    points, equal = pd.concat([_points(v) for v in several]), pd.concat([_equal(v) for v in several])
    points["label"] = [f"{alpha:g}" if alpha else "" for alpha in points["alpha"]]
    x = alt.X(
        "kl:Q",
        title="KL on neutral text (nats per token)",
        scale=alt.Scale(type="sqrt"),
        axis=alt.Axis(tickCount=5, format="~g"),
    )
    y = alt.Y("value:Q", title="effect (nats)", axis=alt.Axis(tickCount=6))
    colour = colour_by_name(names, title="method")
    base = Chart(inline_rows(points, "name", "alpha", "label", "kl", "value", "low", "high")).encode(
        x=x, y=y, color=colour
    )
    tooltip = ["name:N", *number_tooltips("alpha", "kl", "value", "low", "high")]
    layers: list[Any] = []
    if len(equal):
        rule = Chart(inline_rows(equal.head(1), "kl")).mark_rule(color=MUTED_COLOUR, strokeDash=[2, 3])
        layers.append(rule.encode(x=x))
    layers.append(
        base.mark_rule(strokeWidth=1, opacity=0.5).encode(y=alt.Y("low:Q", title="effect (nats)"), y2="high:Q")
    )
    layers.append(
        base.mark_line(strokeWidth=2, order=True, point={"size": 30}).encode(order="alpha:Q", tooltip=tooltip)
    )
    layers.append(base.mark_text(dx=7, dy=-7, fontSize=10).encode(text="label:N"))
    if len(equal):
        marks = Chart(inline_rows(equal, "name", "kl", "value")).mark_point(shape="diamond", size=90, strokeWidth=1.8)
        layers.append(marks.encode(x=x, y=y, color=colour))
    return overlay(*layers).properties(width=CHART_WIDTH / 3 - 60, height=220, title=panel_title(name, _said(equal)))


def _said(equal: pd.DataFrame) -> str:
    """The effects at equal cost, the largest first."""
    if equal.empty:
        return ""
    best = equal.sort_values("value", ascending=False)
    effects = ", ".join(f"{n} {v:+.2f}".replace("-", "−") for n, v in zip(best["name"], best["value"], strict=True))
    return f"at a KL of {equal['kl'].iloc[0]:g}: {effects} nats"
