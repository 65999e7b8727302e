"""The plug-ins of this package meet the contracts of ontogeny, and ontogeny finds them by name."""

import numpy as np
import pandas as pd
import torch
from ontogeny_margin.cohens_d import cohens_d

import ontogeny
from ontogeny.testing import check_concept, check_metrics, check_probe, check_view


def test_plugins_are_found_by_name() -> None:
    assert "trimmed_mean" in ontogeny.list_plugins("probes")
    assert "cohens_d" in ontogeny.list_plugins("metrics")
    assert "parity" in ontogeny.list_plugins("concepts")
    assert "score_histogram" in ontogeny.list_plugins("views")


def test_probe() -> None:
    check_probe("trimmed_mean")


def test_metric() -> None:
    check_metrics("cohens_d")
    scores, labels = torch.randn(2, 40), torch.arange(40) % 3 > 0
    a, b = scores[:, labels].numpy(), scores[:, ~labels].numpy()
    pooled = ((len(a[0]) - 1) * a.var(1, ddof=1) + (len(b[0]) - 1) * b.var(1, ddof=1)) / (40 - 2)
    assert np.allclose(cohens_d(scores, labels), (a.mean(1) - b.mean(1)) / np.sqrt(pooled), atol=1e-5)


def test_concept() -> None:
    check_concept("parity")


def test_view() -> None:
    """A table as a trace writes it, of two concepts at two checkpoints."""
    columns = dict.fromkeys(ontogeny.Record.__dataclass_fields__)
    rows = [
        columns
        | {"lineage": "l", "stage": "base", "step": step, "concept": concept, "site": f"resid.{layer}", "layer": layer}
        | {"metric": metric, "value": 0.5 + layer / 20, "low": 0.4, "high": 0.9, "n": 80, "coords": {}}
        for concept in ("parity", "truth")
        for step in (0, 100)
        for layer in range(8)
        for metric in ("auroc", "accuracy", "fisher")
    ]
    check_view("score_histogram", pd.DataFrame(rows))
