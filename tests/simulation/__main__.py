"""Measure the error rates of the sentences by simulation and print them as a table: `make calibration`, twenty minutes.

The tests run a small part of it. `docs/calibration.md` holds the table.
"""

import sys
import time
from collections.abc import Callable

from tests.simulation import cross_fit_coverage, erasure, monitor_rates, watched_runs
from tests.simulation import report_rates as simulated

SECTIONS: dict[str, Callable[[], str]] = {}


def section(title: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Name a function that returns a Markdown table."""

    def keep(measure: Callable[[], str]) -> Callable[[], str]:
        SECTIONS[title] = measure
        return measure

    return keep


@section("False claims of a report")
def false_claims() -> str:
    """Rates of reports in which nothing happens, without and with the correction."""
    reports = {
        "six null concepts: an emergence": (300, lambda n: simulated.claims_of_reports(n)),
        "six concepts at AUROC .64 throughout: an emergence": (150, lambda n: simulated.claims_of_reports(n, gap=0.5)),
        "six concepts at AUROC .75 throughout: an emergence": (150, lambda n: simulated.claims_of_reports(n, gap=0.95)),
        "six null concepts: a loss": (200, lambda n: simulated.loss_claims_of_reports(n)),
        "six concepts at AUROC .80 throughout: a loss": (150, lambda n: simulated.loss_claims_of_reports(n, gap=1.2)),
        "96 random curves (6 concepts, 4 layers, 2 kernels, 2 stages): a phase": (
            200,
            lambda n: simulated.phase_claims_of_reports(n),
        ),
        "Holm over 18 independent nulls": (20000, lambda n: simulated.holm_rejections(n, shared=0.0)),
        "Holm over 18 nulls correlated by a half": (20000, lambda n: simulated.holm_rejections(n)),
    }
    lines = ["| report | reports | claims, each curve alone | claims, corrected |", "|---|---|---|---|"]
    for what, (count, simulate) in reports.items():
        alone, corrected = simulated.rates(simulate(count))
        lines.append(f"| {what} | {count:,} | {alone:.1%} | {corrected:.1%} |")
    return "\n".join(lines)


@section("Coverage of cross-fitted intervals")
def score_coverage() -> str:
    """Intervals of AUROC over split, groups and fit."""
    return cross_fit_coverage.score_table()


@section("Coverage between these numbers of groups")
def between_coverage() -> str:
    """Intervals of AUROC with 7 to 17 groups."""
    return cross_fit_coverage.between_table()


@section("Coverage of other metrics")
def metric_coverage() -> str:
    """Intervals of accuracies, of differences to a baseline and of three classes."""
    return cross_fit_coverage.metric_table()


@section("Coverage of emergence steps")
def step_coverage() -> str:
    """Intervals of steps of weak and strong curves."""
    return cross_fit_coverage.step_table()


@section("Alerts of a watched training")
def alerts() -> str:
    """False alarms of null runs and delays of planted ones; docs/watching.md holds the table."""
    return watched_runs.alarm_table()


@section("False alarms of saved monitors")
def monitor_false_alarms() -> str:
    """Rate at which new negatives pass the threshold of a saved probe."""
    return monitor_rates.monitor_table()


@section("After erasure")
def scores_after_erasure() -> str:
    """AUROC after LEACE by the number of examples per dimension."""
    return erasure.erasure_table()


def main() -> None:
    wanted = sys.argv[1:]
    for title, measure in SECTIONS.items():
        if wanted and not any(word.lower() in title.lower() for word in wanted):
            continue
        began = time.perf_counter()
        print(f"\n## {title}\n\n{measure()}\n\n{time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
