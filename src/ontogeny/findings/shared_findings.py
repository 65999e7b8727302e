"""Shared findings: those of a table that several charts draw are collected once for all of them."""

import weakref

import pandas as pd

from ontogeny.findings.finding import SCORE_METRICS, Finding, collect_findings
from ontogeny.findings.table import tidy_records
from ontogeny.findings.timeline import EVENT_METRICS, Timeline, make_timeline

_METRICS = (*SCORE_METRICS, *EVENT_METRICS, "best_site", "cv_score", "answer_accuracy")
_collected: dict[int, list[tuple[list[Finding], Timeline]]] = {}
"""The findings of each shared table, by its identity; none before they are asked for."""


def share_findings(records: pd.DataFrame) -> pd.DataFrame:
    """The same table, which nobody may change from now on, so that `curve_findings` collects its findings once."""
    _collected[id(records)] = []
    weakref.finalize(records, _collected.pop, id(records), None).atexit = False
    return records


def curve_findings(records: pd.DataFrame) -> tuple[list[Finding], Timeline]:
    """The findings of the scores, events and answers of a table, and the timeline of all its records."""
    known = _collected.get(id(records))
    if known:
        return known[0]
    table, line = tidy_records(records[records["metric"].isin(_METRICS)]), make_timeline(records)
    collected = collect_findings(table, line), line
    if known is not None:
        known.append(collected)
    return collected
