"""Intervals of out-of-fold scores: the same for probes and surface baselines, and consistent between metrics, differences and resamples."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ontogeny.data.concept import Concept
from ontogeny.measurements.cross_fitted_scores import CrossFittedScores
from ontogeny.measurements.design import make_design
from ontogeny.measurements.scores import cross_fitted_scores, design_scores, metrics_for
from ontogeny.measurements.settings import TraceSettings
from ontogeny.measurements.surface_baselines import audit_surface
from ontogeny.statistics.bootstrap import group_weights
from ontogeny.statistics.splits import cross_fit_folds

LABELS = {"binary": "01", "classes": ("red", "green", "blue"), "number": "123"}


@pytest.mark.parametrize("kind", LABELS)
def test_surface_baselines_and_probes_with_equal_scores_have_equal_intervals(kind: str, tmp_path: Path) -> None:
    labels, stated = LABELS[kind], kind == "number"
    rows = [
        f"{'word' * (i % 5)} {'Here' if i % 3 else 'there'},{labels[i // 4 % len(labels)]},g{i // 4}{',number' * stated}"
        for i in range(72)
    ]
    (tmp_path / "planted.csv").write_text("\n".join(["text,label,group" + ",kind" * stated, *rows]))
    concept = Concept.from_file(tmp_path / "planted.csv")
    design = make_design(concept, TraceSettings(resamples=100, permutations=100))
    audit = audit_surface(concept, design.split, folds=design.test_folds)
    for name, values in audit.held_out.items():
        scored = cross_fitted_scores(values[None], design, width=len(design.y))
        for metric in metrics_for(concept.kind):
            value, interval = design_scores(metric, values[None], design, scored)
            baseline = audit.baselines[name].scores[metric]
            assert (float(value), *interval[0].ends) == pytest.approx((baseline.value, baseline.low, baseline.high))


def test_excess_over_equal_scores_is_zero_and_resamples_spread_like_the_interval() -> None:
    g = torch.Generator().manual_seed(0)
    y, groups = torch.arange(200) % 2 == 0, torch.arange(200) // 2
    values = torch.randn(2, 200, 1, generator=g) + y[:, None]
    scored = CrossFittedScores(values, y, cross_fit_folds(groups, y, "binary"), groups, width=10)
    excess, ends = scored.excess(replace(scored, width=20))
    assert not excess.any()
    assert not ends.low.any()
    assert not ends.high.any()
    weights = group_weights(groups, samples=2000)
    for metric in ("auroc", "accuracy"):
        samples, interval = scored.samples(metric, weights), scored.interval(metric)
        spread = samples.quantile(0.975, 0) - samples.quantile(0.025, 0)
        assert torch.allclose(spread, interval.high - interval.low, rtol=0.1)
