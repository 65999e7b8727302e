"""Shared findings: collected once for a table that several charts draw, equal to those of any other table with its rows."""

import gc
from typing import Any

import pandas as pd
import pytest

from ontogeny.findings import shared_findings
from ontogeny.findings.shared_findings import curve_findings, share_findings
from tests.helpers import synthetic_records


def test_findings_of_a_shared_table_are_collected_once_and_forgotten_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    collected: list[int] = []
    real = shared_findings.collect_findings

    def counted(table: pd.DataFrame, line: Any) -> Any:
        collected.append(len(table))
        return real(table, line)

    monkeypatch.setattr(shared_findings, "collect_findings", counted)
    plain = synthetic_records.table(sft=True)
    shared = share_findings(plain.copy())
    findings, line = curve_findings(shared)
    again, _ = curve_findings(shared)
    assert again is findings
    assert len(collected) == 1
    apart, other = curve_findings(plain)
    ends = [[repr((one.name, one.site, one.final, one.emergence)) for one in of] for of in (findings, apart)]
    assert ends[0] == ends[1]
    pd.testing.assert_frame_equal(line.moments, other.moments)
    half, _ = curve_findings(shared[shared["concept"].eq("truth")])
    assert {one.subject.concept for one in half} == {"truth"} != {one.subject.concept for one in findings}
    assert len(collected) == 3, "tables that are not shared are read anew: they may have changed"
    known = id(shared)
    del shared
    gc.collect()
    assert known not in shared_findings._collected
