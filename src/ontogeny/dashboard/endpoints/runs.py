"""Runs: their names, and of one run its checkpoints, concepts, metrics, findings and warnings."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from ontogeny.dashboard.endpoints._common import run_of
from ontogeny.dashboard.shown_run import ShownRun
from ontogeny.findings.finding import collect_findings
from ontogeny.findings.selection import FINDING_ROWS
from ontogeny.findings.sentences import finding_sentences, run_headline

runs_router = APIRouter()


@runs_router.get("/runs")
def list_runs(request: Request) -> list[dict[str, Any]]:
    """Names of the runs, in the order in which they were given, with the version of their records."""
    return [{"name": shown.name, "version": shown.version()} for shown in request.app.state.runs.members.values()]


@runs_router.get("/runs/{run}")
def read_run(shown: Annotated[ShownRun, Depends(run_of)]) -> dict[str, Any]:
    """Checkpoints on the time axis, stages, concepts, and the metrics with their parts and probes."""
    return {**shown.describe(), "version": shown.version()}


@runs_router.get("/runs/{run}/findings")
def read_findings(shown: Annotated[ShownRun, Depends(run_of)]) -> dict[str, Any]:
    """The headline, the sentences of each concept, and the warnings of a report."""
    return shown.result("findings", lambda: _findings(shown))


def _findings(shown: ShownRun) -> dict[str, Any]:
    from ontogeny.report.html import (
        report_warnings,
    )  # loads torch, for seconds, which a first look at a run does not need

    source = shown.source()
    findings = collect_findings(source.rows(FINDING_ROWS))
    return {
        "headline": run_headline(findings),
        "concepts": [{"name": finding.name, "sentences": list(finding_sentences(finding))} for finding in findings],
        "warnings": [list(warning) for warning in report_warnings(source, shown.about, findings)],
    }
