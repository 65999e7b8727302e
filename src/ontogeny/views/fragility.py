"""Fragility over training: the noise on the activations at which a probe breaks, beside its accuracy.

Left: accuracy of the logistic probe at each concept's best site. Right: its fragility there, the noise, in standard deviations of the
activations, at which its balanced accuracy falls to 0.6; more is sturdier, 0 is a probe that is no better without noise. Where the left
curve is flat and the right one moves, training still changes how far apart the classes are (arXiv:2606.11375). Bands are 95 % intervals.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.selection import metric_condition
from ontogeny.findings.table import best_site_rows, mean_over_seeds, records_by_concept, select_rows, tidy_records
from ontogeny.findings.timeline import make_timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._axes import thin_checkpoints
from ontogeny.views._chart_parts import blank_chart, missing_rows_reason
from ontogeny.views._metric_panels import metric_panels

title = "Fragility"
place = 9
together = True
needs = frozenset({"step", "concept", "site", "method", "metric", "value", "low", "high"})

_AXIS = alt.Axis(tickCount=6)
METRICS = {
    "accuracy": {"title": "accuracy (0–1)", "scale": alt.Scale(domain=[0, 1]), "axis": _AXIS},
    "fragility": {
        "title": "noise (spreads of the activations)",
        "scale": alt.Scale(type="sqrt", domainMin=0),
        "axis": _AXIS,
    },
}
MOST = 60
select = rows_with_metrics(*METRICS, "best_site")
where = f"metric = 'best_site' or ({metric_condition(*METRICS)} and {{site:{'+'.join(METRICS)}}} and {{thin:{MOST}:fragility}})"


def draw(records: pd.DataFrame) -> Any:
    table, line, fewer = thin_checkpoints(tidy_records(select(records)), make_timeline(records), MOST, "fragility")
    curves = [table.head(0)]
    for subject in records_by_concept(table):
        rows = select_rows(subject.rows, *METRICS)
        rows = rows[rows["method"].eq("logistic")]
        own = rows[rows["value"].notna() & rows["site"].isin(best_site_rows(subject.rows)["site"])]
        if own["metric"].eq("fragility").any():
            curves.append(mean_over_seeds(line.place(own), "metric").assign(name=subject.name))
    rows = pd.concat(curves)
    if rows.empty:
        missing = table[table["metric"].eq("fragility")]
        return blank_chart(title, missing_rows_reason(missing, "a fragility (concepts of two classes have one)"))
    return metric_panels(rows, METRICS, line, of="texts", fewer=fewer)
