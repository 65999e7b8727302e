"""Sentences on the data-mix axis: what rises or falls with the share of the data in which siblings differ, as `evaluate` wrote them."""

import pandas as pd

from ontogeny.findings.table import coord_column

_ORDER = ("unwanted", "probe", "heads", "effect", "removed", "kl", "cross_entropy")


def share_trend_sentences(records: pd.DataFrame) -> list[str]:
    """The notes of the rows `share_trend` by concept: behaviour first, then probes, effects and costs; also why a trend is absent."""
    own = records["control"].isna() | records["control"].eq("")
    rows = records[records["metric"].eq("share_trend") & own]
    if rows.empty:
        return []
    order = {name: place for place, name in enumerate(_ORDER)}
    place = coord_column(rows, "of").map(lambda name: order.get(name, len(order)))
    rows = rows.assign(place=place).sort_values(["concept", "place", "method"], kind="stable")
    return [
        str(note) if pd.notna(value) else f"{concept}, {method}: no trend of {of} ({note})."
        for note, value, concept, method, of in zip(
            rows["note"], rows["value"], rows["concept"], rows["method"], coord_column(rows, "of"), strict=True
        )
    ]
