"""Sentences on the data-mix axis: what rises or falls with the share of the data in which siblings differ, as `evaluate` wrote them."""

import pandas as pd

from ontogeny.findings.table import coord_column

_ORDER = ("unwanted", "probe", "heads", "effect", "removed", "kl", "cross_entropy")


def share_trend_sentences(records: pd.DataFrame) -> list[str]:
    """The notes of the rows `share_trend` by concept: behaviour first, then probes, effects and costs; last why others are absent."""
    own = records["control"].isna() | records["control"].eq("")
    rows = records[records["metric"].eq("share_trend") & own]
    if rows.empty:
        return []
    order = {name: place for place, name in enumerate(_ORDER)}
    place = coord_column(rows, "of").map(lambda name: order.get(name, len(order)))
    rows = rows.assign(place=place).sort_values(["concept", "place", "method"], kind="stable")
    sentences = [str(note) for note in rows.loc[rows["value"].notna(), "note"]]
    absent = rows[rows["value"].isna()]
    for concept, reason in absent[["concept", "note"]].drop_duplicates().itertuples(index=False, name=None):
        same = absent[absent["concept"].eq(concept) & absent["note"].eq(reason)]
        names = [f"{of} of {method}" for of, method in zip(coord_column(same, "of"), same["method"], strict=True)]
        sentences.append(f"{concept}: no trend of {', '.join(dict.fromkeys(names))}: {reason}.")
    return sentences
