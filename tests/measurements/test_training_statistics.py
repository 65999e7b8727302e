"""Statistics that probes and the spectrum share equal those computed alone, with fewer and with more examples than dimensions."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ontogeny import plugins
from ontogeny.data.concept import Concept
from ontogeny.measurements.dependence import dependence_rows
from ontogeny.measurements.design import Design, make_design
from ontogeny.measurements.settings import ProbeProtocol, TraceSettings
from ontogeny.measurements.training_statistics import TrainingStatistics
from ontogeny.metrics.geometry import geometry
from ontogeny.probes import FoldProbes, leace, training_masks
from ontogeny.sites import Site

N = 40
# Of 40 examples in 5 folds, 32 are outside each fold: 36 dimensions are fewer than the examples, and more than those.
WIDTHS = (12, 36, 40, 64)
SITES = tuple(Site("resid", layer) for layer in range(4))


def _design(protocol: ProbeProtocol, kind: str, home: Path) -> tuple[Design, TraceSettings]:
    labels = {"binary": "01", "classes": ("red", "green", "blue"), "number": "123"}[kind]
    stated = ",number" if kind == "number" else ""
    rows = [f"word{i} is here,{labels[i % 2 + i % 4 // 3 * (len(labels) - 2)]},g{i // 4}{stated}" for i in range(N)]
    (home / "planted.csv").write_text("\n".join(["text,label,group" + ",kind" * bool(stated), *rows]))
    settings = TraceSettings(protocol=protocol, kernels=("linear",), resamples=100, permutations=100)
    return make_design(Concept.from_file(home / "planted.csv"), settings), settings


def _activations(width: int) -> Tensor:
    """Plain noise, a huge mean with an outlier dimension, equal examples, and examples that repeat."""
    x = torch.randn(4, N, width, generator=torch.Generator().manual_seed(0))
    x[1] = 20 + x[1] * torch.linspace(0.1, 1, width)
    x[1, :, 0] *= 50
    x[2] = x[2, :1]
    x[3] = x[3, torch.arange(N) % 5]
    return x


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("protocol", "kind"),
    [("cross-fit", "binary"), ("cross-fit", "classes"), ("cross-fit", "number"), ("single-split", "binary")],
)
def test_spectrum_equals_that_of_the_activations(
    protocol: ProbeProtocol, kind: str, width: int, tmp_path: Path
) -> None:
    design, settings = _design(protocol, kind, tmp_path)
    x = _activations(width)
    moments = TrainingStatistics.of(x[:, design.split.train], design).moments
    of_few = protocol == "cross-fit" or len(design.split.train) > width
    assert (moments is not None) == (kind == "binary" and of_few)
    about = design.row_context(settings.seed)
    rows = dependence_rows(design, about, x, x[0], SITES, settings, moments=moments)
    # All training examples where their moments are known, else the same examples as for dependence.
    used = design.dependence_rows if moments is None else design.split.train
    expected = geometry(x[:, used].double())
    for metric in ("participation_ratio", "effective_rank"):
        found = [row for row in rows if row.metric == metric]
        assert {row.n for row in found if row.site != "resid.2"} == {len(used)}
        values = torch.tensor([row.value for row in found], dtype=torch.float64)
        torch.testing.assert_close(values, getattr(expected, metric).double(), rtol=1e-5, atol=0, equal_nan=True)
    shares = torch.tensor([row.value for row in rows if row.metric == "variance_share"], dtype=torch.float64)
    torch.testing.assert_close(shares.view(10, 4).T, expected.variance_share, rtol=1e-5, atol=1e-9, equal_nan=True)
    assert torch.isnan(expected.effective_rank).tolist() == [False, False, True, False]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("name", "within"), [("leace", 1e-4), ("pca", 0.02)])
def test_probes_by_shared_statistics_equal_separate_fits(name: str, within: float, width: int, tmp_path: Path) -> None:
    design, _ = _design("cross-fit", "binary", tmp_path)
    assert design.test_folds is not None
    y, groups, folds, x = design.y, design.groups, design.test_folds, _activations(width)[:2]
    x[0, :, 1] += 4 * y
    module = plugins.load_plugin("probes", name)
    more = {"shrink": leace.SHRINK} if name == "leace" else {}
    each = [module.fit(x[:, m], y[m], groups=groups[m], **more) for m in training_masks(folds)]
    expected = FoldProbes.of(module.fit(x, y, groups=groups, **more), each)
    shared = TrainingStatistics.of(x, design)
    assert (shared.span is not None) == (width >= N)
    found = shared.fold_probes(name, module.fit_folds, x, y, {"folds": folds, "groups": groups})
    for mine, theirs in (
        (found.held_out_scores(x, folds), expected.held_out_scores(x, folds)),
        (found.probe.scores(x), expected.probe.scores(x)),
    ):
        size = theirs.abs().amax(1, keepdim=True)
        assert ((mine - theirs).abs() / size).max() < within
