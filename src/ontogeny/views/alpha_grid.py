"""The grid on which alpha was chosen: the effect on development questions for each number of heads K, or each site, at each alpha.

Blue cells make the continuation that shows the concept more likely, orange cells the other one. The framed cell was chosen: the largest
effect within the limit of cost on neutral text. The choice was made on these questions, so the values are optimistic; the
dose–response chart shows held-out questions.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.steering_verdicts import EvaluatedVector, evaluated_vectors
from ontogeny.findings.table import tidy_records
from ontogeny.findings.timeline import make_timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import inline_rows, labelled_cells, multiples_or_blank, number_tooltips, panel_title
from ontogeny.views._layout import Chart, overlay
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._theme import CHART_WIDTH, DIVERGING_SCHEME, INK_COLOUR

title = "Alpha grid"
place = 13
needs = frozenset({"concept", "method", "metric", "split", "value", "coords"})
METRICS = ("steering_effect", "neutral_kl", "chosen_alpha")
select = rows_with_metrics(*METRICS)


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    grids = [(v, cells) for v in evaluated_vectors(table, make_timeline(records)) if len(cells := _cells(v)) > 0]
    most = max((float(cells["value"].abs().max()) for _, cells in grids), default=0.0) or 1.0
    what = "steering_effect on development questions (ontogeny evaluate makes them)"
    chart = multiples_or_blank([_panel(v, cells, most) for v, cells in grids], title, table, what)
    return (
        with_legend(chart, LegendEntry("chosen: the largest effect within the limit of cost", "frame"))
        if grids
        else chart
    )


def _cells(vector: EvaluatedVector) -> pd.DataFrame:
    rows = vector.rows[vector.rows["value"].notna() & vector.rows["alpha"].notna() & vector.rows["choice"].ne("")]
    effect = rows[rows["metric"].eq("steering_effect") & rows["split"].eq("development")]
    cost = rows[rows["metric"].eq("neutral_kl")][["choice", "alpha", "value"]].rename(columns={"value": "kl"})
    effect = effect[["choice", "alpha", "value", "low", "high"]].merge(
        cost.drop_duplicates(["choice", "alpha"]), on=["choice", "alpha"], how="left"
    )
    return effect.assign(
        label=[_signed(value) for value in effect["value"]],
        dose=[f"{alpha:g}" for alpha in effect["alpha"]],
        chosen=effect["choice"].eq(vector.chosen) & effect["alpha"].eq(vector.alpha),
    )


def _signed(value: float) -> str:
    """With its sign; 0 for values that round to 0."""
    text = f"{value:+.2f}".replace("-", "−")
    return "0" if float(f"{value:.2f}") == 0 else text


def _panel(vector: EvaluatedVector, cells: pd.DataFrame, most: float) -> Any:
    doses = [f"{alpha:g}" for alpha in sorted(cells["alpha"].unique())]
    choices = sorted(cells["choice"].unique(), key=lambda c: float(c.rsplit(".", 1)[-1]))
    heads = not any("." in choice for choice in choices)
    x = alt.X("dose:N", sort=doses, title="alpha (times the vector)", axis=alt.Axis(labelAngle=0))
    y = alt.Y("choice:N", sort=choices[::-1], title="heads K (count)" if heads else "site (resid)")
    base = Chart(inline_rows(cells.drop(columns="chosen"))).encode(x=x, y=y)
    scale = alt.Scale(scheme=DIVERGING_SCHEME, domain=[-most, most], domainMid=0, reverse=True)
    legend = alt.Legend(title="effect, nats", orient="bottom", gradientLength=200)
    colour = alt.Color("value:Q", scale=scale, legend=legend)
    tooltip = ["choice:N", "dose:N", *number_tooltips("value", "low", "high", "kl")]
    layers = labelled_cells(base, colour, tooltip, f"abs(datum.value) > {0.6 * most}", label={"fontSize": 10})
    chosen = cells[cells["chosen"]]
    if len(chosen):
        frame = Chart(inline_rows(chosen, "dose", "choice")).mark_rect(
            fill="transparent", stroke=INK_COLOUR, strokeWidth=2
        )
        layers.append(frame.encode(x=x, y=y))
    height = min(max(26 * len(choices), 80), 320)
    return overlay(*layers).properties(
        width=CHART_WIDTH / 3 - 70, height=height, title=panel_title(vector.name, vector.subtitle)
    )
