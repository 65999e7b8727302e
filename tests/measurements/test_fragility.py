"""Fragility equals the noise at which drawn noise breaks the probe; it moves where accuracy is flat; both ends are censored with a note."""

import math

import pytest
import torch
from torch import Tensor

from ontogeny.data.concept import Concept
from ontogeny.measurements.design import Design, make_design
from ontogeny.measurements.fragility import LARGEST_NOISE
from ontogeny.measurements.measure import measure_concept
from ontogeny.measurements.settings import ProbeProtocol, TraceSettings
from ontogeny.metrics.fragility import COLLAPSED_ACCURACY, first_crossing, fragility
from ontogeny.records import Record
from ontogeny.sites import Site

N, D = 120, 8


def _accuracy_on_drawn_noise(x: Tensor, y: Tensor, direction: Tensor, bias: float, noise: float) -> float:
    draws = torch.randn(4000, *x.shape, generator=torch.Generator().manual_seed(3))
    right = (((x + noise * draws) @ direction + bias > 0) == y).double().mean(0)
    return float((right[y].mean() + right[~y].mean()) / 2)


@pytest.mark.parametrize("share", [0.5, 0.2], ids=["balanced", "one in five"])
def test_fragility_is_the_noise_at_which_drawn_noise_breaks_the_probe(share: float) -> None:
    draw = torch.Generator().manual_seed(1)
    y = torch.arange(60) < 60 * share
    x = torch.randn(60, D, generator=draw) + torch.where(y, 1.0, -0.6)[:, None]
    direction, bias = torch.randn(D, generator=draw).abs(), 0.7
    scores = (x @ direction + bias) / direction.norm()
    noise = float(fragility(scores[None], y)[0])
    assert noise > 0.5
    # 4,000 draws of 60 texts: a standard error of .001.
    assert _accuracy_on_drawn_noise(x, y, direction, bias, noise) == pytest.approx(COLLAPSED_ACCURACY, abs=0.005)


def test_fragility_of_two_points_has_a_known_value() -> None:
    y = torch.tensor([True, False])
    exact = 2.0 / torch.special.ndtri(torch.tensor(0.6)).item()
    assert float(fragility(torch.tensor([[2.0, -2.0]]), y)[0]) == pytest.approx(exact, rel=1e-3)
    never = first_crossing(torch.ones(1, 2), y, 0.5)
    assert float(never[0]) == math.inf
    assert float(fragility(torch.tensor([[-2.0, 2.0]]), y)[0]) == 0  # wrong without noise


def test_first_of_several_crossings_counts() -> None:
    """Noise breaks the half with small margins first, and then brings the wrong third back to chance."""
    margins = torch.tensor([[0.01] * 10 + [100.0] * 4 + [-1.0] * 6])
    y = torch.arange(20) % 2 == 0
    noise = float(first_crossing(margins, y, 0.6)[0])
    assert noise < 0.1


def _design(protocol: ProbeProtocol, tmp_path_factory: pytest.TempPathFactory) -> tuple[Design, TraceSettings]:
    path = tmp_path_factory.mktemp("concept") / "planted.csv"
    rows = [f"word{i} is here,{i % 2},{i // 2}" for i in range(N)]
    path.write_text("\n".join(["text,label,group", *rows]))
    settings = TraceSettings(
        protocol=protocol, fits=("logistic",), kernels=("linear",), resamples=100, permutations=100, untrained=False
    )
    return make_design(Concept.from_file(path), settings), settings


def _rows(design: Design, settings: TraceSettings, x: Tensor) -> dict[tuple[str, str], Record]:
    sites = [Site("head", 1, i) for i in range(len(x))]
    measured = measure_concept(design, {"head": x}, {"head": sites}, x[0], settings)
    return {(row.metric, str(row.site)): row for row in measured.records if row.control is None}


@pytest.mark.parametrize("protocol", ["cross-fit", "single-split"])
def test_records_have_both_units_intervals_and_both_ends(
    protocol: ProbeProtocol, tmp_path_factory: pytest.TempPathFactory
) -> None:
    design, settings = _design(protocol, tmp_path_factory)
    sign, draw = design.y.float() * 2 - 1, torch.Generator().manual_seed(0)
    noise = torch.randn(N, D, generator=draw)
    axis = torch.eye(D)[0]
    planted = [noise + sign[:, None] * axis * strength for strength in (4.0, 12.0)]
    copied = 12.0 * sign[:, None] * torch.ones(D) + noise  # the concept in every dimension
    x = torch.stack([noise, *planted, 3 * planted[0], copied])
    rows = _rows(design, settings, x)
    chance, near, far, scaled, everywhere = (rows["fragility", f"head.1.{i}"] for i in range(5))
    # Accuracy is 1 for both distances, and does not tell them apart.
    assert rows["accuracy", "head.1.1"].value == rows["accuracy", "head.1.2"].value == 1
    absolute = {i: rows["fragility_absolute", f"head.1.{i}"] for i in range(5)}
    assert absolute[2].value > 2 * absolute[1].value
    assert everywhere.value > far.value > near.value
    # Relative values do not depend on the scale of the activations.
    assert scaled.value == pytest.approx(near.value, rel=0.02)
    assert absolute[3].value == pytest.approx(3 * absolute[1].value, rel=0.02)
    for row in (near, far, scaled, everywhere):
        assert row.low < row.value < row.high <= LARGEST_NOISE
        assert row.note is None
    assert chance.value == chance.low == 0
    assert 0 <= chance.high < near.low
    assert chance.note is not None
    assert "censored at 0" in chance.note


def test_a_probe_that_bears_more_than_the_largest_noise_is_censored_there(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    design, settings = _design("single-split", tmp_path_factory)
    wide = 20_000
    x = (design.y.float() * 2 - 1)[:, None] * torch.ones(wide)
    x = x + 0.01 * torch.randn(N, wide, generator=torch.Generator().manual_seed(0))
    row = _rows(design, settings, x[None])["fragility", "head.1.0"]
    assert row.value == row.high == LARGEST_NOISE
    assert row.note is not None
    assert "censored at 100" in row.note
