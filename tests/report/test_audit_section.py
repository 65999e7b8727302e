"""The audit section of the report: always present, faults at the top, names escaped."""

from pathlib import Path

import pytest

from ontogeny.report.html import write_report
from tests.helpers import synthetic_records

FOUND = {
    "kind": "stale",
    "severity": "fault",
    "checkpoints": ["step1", "step2"],
    "what": "2 steps (<b>step1</b>, step2) serve the weights of step9",
    "next": "Leave them out.",
}
WARNED = FOUND | {"kind": "gap", "severity": "warning", "what": "between step 3 and 5 about 1 step is missing"}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the charts, which take seconds and do not depend on the audit."""
    monkeypatch.setattr("ontogeny.report.html.report_pictures", lambda records: ([], []))


def page(tmp_path: Path, audit: dict[str, object] | None) -> str:
    about = synthetic_records.about() | ({} if audit is None else {"audit": audit})
    return write_report(synthetic_records.table(), about, tmp_path / "report.html").read_text(encoding="utf-8")


def test_faults_are_warnings_and_all_findings_are_listed(tmp_path: Path) -> None:
    told = page(tmp_path, {"sentence": "9 checkpoints audited: 1 fault.", "findings": [FOUND, WARNED]})
    top, rest = told.split('<section id="audit">')
    assert "<b>step1 and 1 more</b> stale: 2 steps" in top
    assert "between step 3 and 5" not in top
    assert "9 checkpoints audited: 1 fault." in rest
    assert "between step 3 and 5" in rest
    assert "<b>step1</b>," not in told, "names are text"


def test_missing_audit_differs_from_audit_without_findings(tmp_path: Path) -> None:
    sound = page(tmp_path, {"sentence": "9 checkpoints audited, nothing found.", "findings": []})
    assert "9 checkpoints audited, nothing found." in sound.split('<section id="audit">')[1]
    assert "were not audited" not in sound
    assert "were not audited" in page(tmp_path, None).split('<section id="audit">')[1]
