"""Measurements are computed on the device of the activations."""

import pytest
import torch

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.measurements.design import make_design
from ontogeny.measurements.measure import measure_concept
from ontogeny.measurements.settings import TraceSettings
from ontogeny.sites import Site
from tests.helpers.fake_device import SecondDevice

SETTINGS = TraceSettings(resamples=100, permutations=100, kernels=("gaussian_50", "gaussian_median", "linear", "imq"))
TARGETS = {"binary": lambda i: i % 2 == 0, "classes": lambda i: i % 3, "number": lambda i: float(i % 7)}


def concept(kind: str, pairs: bool) -> Concept:
    words = ("moon", "bread", "river", "seven", "hat", "rain", "cup", "sea")
    examples = tuple(
        Example(
            f"{i} {words[i % 8]} {words[i // 8 % 8]}",
            TARGETS[kind](i),
            f"g{i // 2}",
            pair=f"p{i // 2}" if pairs else None,
        )
        for i in range(96)
    )
    classes = ("a", "b", "c") if kind == "classes" else ()
    return Concept("c", examples, kind=kind, classes=classes)


@pytest.mark.parametrize("d", [8, 80])
@pytest.mark.parametrize(
    ("kind", "pairs"), [("binary", False), ("binary", True), ("classes", False), ("number", False)]
)
def test_measurement_stays_on_one_device(kind, pairs, d):
    of = make_design(concept(kind, pairs), SETTINGS)
    generator = torch.Generator().manual_seed(0)
    parts = {
        "resid": torch.randn(3, 96, d, generator=generator),
        "head": torch.randn(4, 96, d, generator=generator),
    }
    inputs = torch.randn(96, 5, generator=generator)
    sites = {"resid": [Site("resid", i) for i in range(3)], "head": [Site("head", 1, i) for i in range(4)]}
    here = measure_concept(of, parts, sites, inputs, SETTINGS)
    with SecondDevice() as device:
        marked = {part: device.mark(values.clone()) for part, values in parts.items()}
        there = measure_concept(of, marked, sites, device.mark(inputs.clone()), SETTINGS)
    assert sorted(device.mixed) == []
    assert [(r.metric, r.site, r.control) for r in there.records] == [
        (r.metric, r.site, r.control) for r in here.records
    ]
    ours, theirs = ([r.value for r in measured.records] for measured in (there, here))
    assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9, nan_ok=True)


def test_check_finds_tensor_of_another_device():
    with SecondDevice() as device:
        device.mark(torch.ones(3)) + torch.ones(3)
    assert len(device.mixed) == 1
