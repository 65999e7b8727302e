"""Findings: the numbers of a run as sentences, derived once for report, terminal and views."""

__all__ = [
    "finding",
    "literature",
    "persona_drift",
    "seed_agreement",
    "selection",
    "sentences",
    "share_trends",
    "shared_findings",
    "shared_geometry",
    "stage_comparison",
    "steering_verdicts",
    "table",
    "timeline",
    "transfer_verdicts",
]
