"""Robustness of predictions: how often a probe's prediction differs between a held-out text and its perturbed copy, over training.

Left: share of pairs with different predictions at each concept's best site, with its 95 % interval. Right: accuracy lost on the
perturbed texts. Robust predictions are near 0 in both; so are those of a probe at chance, so look at its score first.
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

title = "Robustness of predictions"
place = 9
together = True
needs = frozenset({"step", "concept", "site", "method", "metric", "value", "low", "high"})

_AXIS = alt.Axis(format=".2f", tickCount=6)
METRICS = {
    "flip_rate": {"title": "pairs read differently (0–1)", "axis": _AXIS},
    "perturbed_drop": {"title": "accuracy lost (−1 to 1)", "axis": _AXIS},
}
MOST = 60
select = rows_with_metrics(*METRICS, "best_site")
where = f"metric = 'best_site' or ({metric_condition(*METRICS)} and {{site:{'+'.join(METRICS)}}} and {{thin:{MOST}:flip_rate}})"


def draw(records: pd.DataFrame) -> Any:
    table, line, fewer = thin_checkpoints(tidy_records(select(records)), make_timeline(records), MOST, "flip_rate")
    curves = [table.head(0)]
    for subject in records_by_concept(table):
        best = best_site_rows(subject.rows)
        rows = select_rows(subject.rows, *METRICS)
        rows = rows[rows["value"].notna() & rows["site"].isin(best["site"]) & rows["method"].isin(best["method"])]
        curves.append(mean_over_seeds(line.place(rows), "metric").assign(name=subject.name))
    rows = pd.concat(curves)
    if rows.empty:
        missing = table[table["metric"].isin(METRICS)]
        return blank_chart(title, missing_rows_reason(missing, "a flip_rate (concepts of twins have one)"))
    return metric_panels(rows, METRICS, line, of="pairs", fewer=fewer)
