"""The verdict on a transfer counts its vectors in whole words."""

from dataclasses import replace

import pytest

from ontogeny.findings.transfer_verdicts import TransferVerdict

VERDICT = TransferVerdict(
    **{"concept": "truth", "stage": "sft", "step": 40, "site": "resid.2", "outcome": "answers", "length": "target"},
    **{"own": 1.0, "own_low": 0.5, "own_high": 1.5, "own_p": 0.01, "null_low": -0.1, "null_high": 0.1},
    **{"shuffled_low": -0.1, "shuffled_high": 0.1, "of": "base", "averages": ()},
    **{"sources": 1, "working": 0, "larger": 1, "surely_larger": 0},
)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({}, "; of 1 vector of base, 0 work, 1 has a larger effect than its own (0 surely)."),
        ({"sources": 1200, "working": 1, "larger": 2}, "; of 1,200 vectors of base, 1 works, 2 have a larger effect"),
        ({"sources": 0, "larger": 0}, "; no other vector of base has an effect to count."),
    ],
)
def test_counts_of_vectors_are_no_steps(counts: dict[str, int], words: str) -> None:
    assert words in replace(VERDICT, **counts).sentence
