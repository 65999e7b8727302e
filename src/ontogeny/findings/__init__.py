"""Findings: the numbers of a run as sentences."""

__all__ = [
    "finding",
    "seed_agreement",
    "sentences",
    "stage_comparison",
    "steering_verdicts",
    "table",
    "timeline",
    "transfer_verdicts",
]
