"""Parity certificate: sound models pass, and each planted fault is found."""

import contextlib
import json

import pytest
import torch

from ontogeny import plugins
from ontogeny.activations import parity
from ontogeny.activations.parity import (
    certify_parity,
    describe_parity,
    parity_certificate,
    sample_sequences,
)
from ontogeny.models.model import load_model
from ontogeny.report.html import report_warnings, write_report
from ontogeny.storage.run import Run
from tests.helpers import synthetic_records

TABLES = [
    plugins.load_plugin("architectures", name).architecture
    for name in plugins.list_plugins("architectures")
    if name != "vit"
]
FAMILIES = [model_type for table in TABLES for model_type in table.model_types]
"""All that read texts."""
DRAW = torch.Generator().manual_seed(1)
TEXTS = [tuple(torch.randint(3, 300, (n,), generator=DRAW).tolist()) for n in (1, 2, 3, 8, 8, 13, 21, 40)]


def values(told):
    return {d["way"]: d["value"] for d in told["differences"]}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes(family, tiny):
    model = load_model(tiny(family))
    told = parity_certificate(model, TEXTS)
    assert told["holds"], told["differences"]
    absent = {d["way"] for d in told["differences"] if d["value"] is None}
    assert absent == ({"device"} if model.architecture.causal else {"device", "cached"})
    assert all(d["reason"] for d in told["differences"] if d["value"] is None)
    assert told["architecture"] == {"type": family, "found_by": "table"}


@pytest.fixture
def model(tiny):
    return load_model(tiny("gpt_neox"))


def by_mask(args, kwargs):
    """A network that takes its mask for positions: right on the right, wrong on the left."""
    if "position_ids" in kwargs:
        kwargs["position_ids"] = torch.arange(kwargs["input_ids"].shape[1])[None].expand_as(kwargs["input_ids"])
    if "attention_mask" in kwargs and not kwargs["attention_mask"].all():
        kwargs["attention_mask"] = torch.ones_like(kwargs["attention_mask"])
    return args, kwargs


def forgetful(args, kwargs):
    kwargs["past_key_values"] = None
    return args, kwargs


@pytest.mark.parametrize(("fault", "hit"), [(by_mask, "padded_left"), (forgetful, "cached")])
def test_finds_a_planted_fault(model, fault, hit):
    handle = model.body.register_forward_pre_hook(lambda _m, args, kwargs: fault(args, kwargs), with_kwargs=True)
    told = parity_certificate(model, TEXTS)
    handle.remove()
    assert not told["holds"]
    assert {way for way, value in values(told).items() if value is not None and value > told["limit"]} == {hit}
    assert "NOT the same numbers" in describe_parity(told)
    assert parity_certificate(model, TEXTS)["holds"]


def test_finds_a_wrong_capture(model, monkeypatch):
    @contextlib.contextmanager
    def coarse(body):
        saved = {p: p.data for p in body.parameters()}
        for p in saved:
            p.data = p.data.bfloat16().float()
        try:
            yield 0
        finally:
            for p, data in saved.items():
                p.data = data

    monkeypatch.setattr("ontogeny.activations.capture.packed_linears", coarse)
    told = parity_certificate(model, TEXTS)
    assert {way for way, value in values(told).items() if value is not None and value > told["limit"]} == {"batched"}


def test_nan_does_not_hold(model):
    with torch.no_grad():
        model.part(2, "mlp.dense_4h_to_h").weight.fill_(float("nan"))
    told = parity_certificate(model, TEXTS)
    assert not told["holds"]
    assert "not a number" in told["sentence"]
    json.dumps(told, allow_nan=False)


def test_unsupported_way_is_named(model):
    def refuse(_module, _args, kwargs):
        if kwargs.get("past_key_values") is not None:
            raise ValueError("this model keeps nothing")

    handle = model.body.register_forward_pre_hook(refuse, with_kwargs=True)
    told = parity_certificate(model, TEXTS)
    handle.remove()
    assert told["holds"]
    assert "with a cache (it fails: this model keeps nothing)" in told["sentence"]


def test_sample_covers_all_lengths_and_is_short():
    many = [tuple(range(n)) for n in range(1, 400)]
    chosen = sample_sequences(many)
    assert len(chosen) == parity.PARITY_TEXTS
    assert len(chosen[0]) == 1
    assert max(map(len, chosen)) == sum(map(len, many)) // parity.SAMPLE_DIVISOR
    assert max(map(len, sample_sequences(many[:30]))) == parity.MIN_SAMPLE_TOKENS
    assert max(map(len, sample_sequences([tuple(range(n)) for n in range(1, 900)]))) == parity.MAX_SAMPLE_TOKENS
    assert sample_sequences([(1, 2), (1, 2), ()]) == [(1, 2)]


def test_half_precision_has_its_own_limit(tiny):
    told = parity_certificate(load_model(tiny("llama"), dtype=torch.bfloat16), TEXTS)
    assert told["dtype"] == "bfloat16"
    assert told["limit"] > 1e-3
    assert told["holds"]


def test_run_keeps_its_first_certificate(model, tmp_path):
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.describe({"name": "x"})
    certify_parity(run, model, "step10", TEXTS)
    first = run.about["parity"]
    assert first["checkpoint"] == "step10"
    certify_parity(run, model, "step20", TEXTS)
    assert run.about["parity"] == first
    certify_parity(run, model, "step30", TEXTS, visits=["step30", "step40"])  # a later trace of other checkpoints
    certify_parity(run, model, "step20", TEXTS, visits=["step0", "step10", "step20"])
    assert run.about["parity"] == first
    certify_parity(run, model, "step0", TEXTS, visits=["step0", "step10", "step20"])
    assert run.about["parity"] == first | {"checkpoint": "step0"}
    assert json.loads(run.about_path.read_text())["name"] == "x"
    assert "4 of the run's texts" in describe_parity(first)


@pytest.mark.usefixtures("one_view")
def test_report_shows_certificate_and_warning(model, tmp_path):
    told = {"checkpoint": "step10", **parity_certificate(model, TEXTS)}
    page = write_report(synthetic_records.frame([]), {"parity": told}, tmp_path / "a.html").read_text(encoding="utf-8")
    assert page.index('id="findings"') < page.index('id="run"') < page.index('id="parity"')
    assert told["sentence"].split(":")[0].replace("'", "&#39;") in page
    assert 'id="warnings"' not in page
    bad = told | {"holds": False, "sentence": "NOT the same numbers"}
    assert ("Parity", "NOT the same numbers.") in report_warnings(synthetic_records.frame([]), {"parity": bad}, [])


@torch.inference_mode()
def test_gpu_model_is_compared_with_a_copy_on_the_cpu(model, monkeypatch):
    """Here the copy stands for the CPU, and the model itself claims to be on a GPU."""
    layers, texts = [1, 2], sample_sequences(TEXTS)
    alone = [parity._states(model, layers, [text])[0] for text in texts]
    at = property(lambda self: torch.device("cuda") if self is model else self.network.device)
    monkeypatch.setattr(type(model), "device", at)
    assert float(parity._on_cpu(model, layers, texts, alone)) == 0
    other = [state * 1.01 for state in alone]
    assert float(parity._on_cpu(model, layers, texts, other)) == pytest.approx(0.01 / 1.01, rel=1e-3)
    monkeypatch.setattr(parity, "MAX_COPY_BYTES", 0)
    assert parity._on_cpu(model, layers, texts, alone) == "more than 0 GB of weights"
