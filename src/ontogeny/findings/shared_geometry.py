"""Sentences about shared geometry: how alike the last checkpoints of models are, when that formed, and which stage changed it."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ontogeny.records import checkpoint_label

if TYPE_CHECKING:
    import pandas as pd

    from ontogeny.storage.run import Run

_CHANGED = 0.95
"""Similarity to the start of a stage below which its end counts as changed."""


def last_comparisons(run: "Run") -> "pd.DataFrame":
    """One row for each space and pair of models at their last checkpoints: centred similarity, its null, and the local similarity."""
    return run.query(
        """
        with pairs as (
            select *, coords['space'] as space, coords['other_model'] as other,
                   row_number() over (partition by lineage, coords['other_model'], coords['space'], metric, method, control
                                      order by step desc nulls first) as place
            from records where coords['against'] = 'model' and coalesce(coords['form'], 'centred') = 'centred'
        ), last as (select * from pairs where place = 1)
        select l.lineage as model, l.other, l.space, l.value, l.low, l.high, l.n, l.note,
               max(m.value) filter (where m.metric = 'embedding_similarity' and m.control = 'frequency_matched') as matched,
               max(m.value) filter (where m.metric = 'local_similarity' and m.control is null) as local
        from last l left join last m on m.lineage = l.lineage and m.other = l.other and m.space = l.space
        where l.metric = 'embedding_similarity' and l.control is null and (l.method = 'pearson' or l.method is null)
        group by all order by model, other, space
        """
    )


def geometry_sentences(run: "Run") -> list[str]:
    """When each similarity formed, and how far each stage moved the geometry."""
    formed = run.query(
        "select lineage, stage, value, low, high, note, coords['model'] as model, coords['space'] as space, "
        "coords['against'] as against, coords['other_model'] as other from records where metric = 'geometry_step' "
        "and not (isnan(value) and note like '%an event needs%')"
    )
    moved = run.query(
        "select lineage, stage, step, value, low, high, coords['space'] as space, coords['other_stage'] as other_stage, "
        "coords['other_step'] as other_step from records where metric = 'embedding_similarity' and method = 'pearson' "
        "and control is null and coords['against'] = 'stage_start' and coords['form'] = 'centred' and not isnan(value)"
    )
    return [*map(_formation, formed.to_dict("records")), *map(_change, moved.to_dict("records"))]


def _formation(row: Mapping[Any, Any]) -> str:
    other = "its last checkpoint" if row["against"] == "last" else str(row["other"])
    subject = f"{row['model']}, {row['space']}: the similarity to {other}"
    value, low, high = (float(str(row[name])) for name in ("value", "low", "high"))
    if math.isnan(value):
        return f"{subject} forms at no step of {row['stage']} that can be told: {row['note']}"
    reach = "" if math.isnan(low) else f" [{low:,.0f}, {'…' if math.isnan(high) else f'{high:,.0f}'}]"
    return f"{subject} is half formed at {checkpoint_label(str(row['stage']), value)}{reach}"


def _change(row: Mapping[Any, Any]) -> str:
    value, low, high = (float(str(row[name])) for name in ("value", "low", "high"))
    verb = "changes" if high < _CHANGED else "keeps" if low >= _CHANGED else "may change"
    step = None if row["other_step"] in (None, "None") else float(str(row["other_step"]))
    start = checkpoint_label(str(row["other_stage"]), step)
    return (
        f"{row['lineage']}: {row['stage']} {verb} the {row['space']} geometry: similarity of its end to {start} "
        f"{value:.2f}{'' if math.isnan(low) else f' [{low:.2f}, {high:.2f}]'}"
    )
