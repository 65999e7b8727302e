"""Estimates of model size and disk space, compared with opened models and finished runs."""

import json

import pytest
import torch
from transformers import AutoConfig

from ontogeny import Concept, Lineage, trace
from ontogeny.jobs.trace import estimate
from ontogeny.jobs.trace.plan import plan_trace
from ontogeny.lineage import Checkpoint
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models import model
from ontogeny.models.size import model_size
from tests.helpers.tiny_models import SHAPES


def products(body) -> int:
    """Multiplications of one token, counted where maps are called."""
    seen = []

    def count(module, args, _):
        weights = [p for p in module.parameters(recurse=False) if p.ndim > 1]
        # Experts are one tensor [expert, out, in], called with the indices of those that the token passes through.
        seen.extend(w.numel() if w.ndim == 2 else w[0].numel() * args[1].numel() for w in weights)

    maps = [m for m in body.modules() if not isinstance(m, torch.nn.Embedding)]
    hooks = [m.register_forward_hook(count) for m in maps]
    body(input_ids=torch.tensor([[5]]))
    for hook in hooks:
        hook.remove()
    return sum(seen)


@pytest.mark.parametrize("family", SHAPES)
def test_model_size_equals_the_network(tiny, family):
    network = model.load_model(tiny(family)).network
    found = model_size(Checkpoint(str(tiny(family))), weights=0)
    assert found.parameters == sum(p.numel() for p in network.parameters())
    if family == "bert":  # its pooler is not asked by whoever fills in words
        assert found.products >= products(network.base_model)
    else:
        assert found.products == products(network.base_model)


def test_products_count_only_active_experts(tmp_path):
    shape = dict(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, intermediate_size=64
    )
    sizes = {}
    for asked in (1, 2, 8):
        config = AutoConfig.for_model(
            "mixtral", **shape, num_local_experts=8, num_experts_per_tok=asked, vocab_size=300
        )
        config.save_pretrained(tmp_path / str(asked))
        sizes[asked] = model_size(Checkpoint(str(tmp_path / str(asked))), weights=0)
    assert len({size.parameters for size in sizes.values()}) == 1
    # An expert has three maps of 32 × 64, in each of two blocks.
    assert sizes[2].products - sizes[1].products == 2 * 3 * 32 * 64
    assert sizes[8].products - sizes[2].products == 6 * 2 * 3 * 32 * 64


def test_size_of_unbuildable_model_comes_from_its_bytes(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt_neox", "num_attention_heads": 0}))
    assert model_size(Checkpoint(str(tmp_path)), weights=4000) == model_size(
        Checkpoint(str(tmp_path / "none")), weights=4000
    )
    assert model_size(Checkpoint(str(tmp_path)), weights=4000).parameters == 1000


@pytest.mark.parametrize("kind", ["binary", "classes", "number"])
def test_disk_estimate_is_within_a_factor_of_two(tiny, tmp_path, kind):
    label = {"binary": lambda i: i % 2, "classes": lambda i: "abcd"[i % 4], "number": lambda i: i * 1.5}[kind]
    rows = [{"text": f"text {i} of many", "label": label(i), "kind": kind} for i in range(120)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lineage, concepts = Lineage.open(tiny("gpt_neox")), [Concept.from_file(tmp_path / "c.jsonl")]
    settings = TraceSettings(untrained=False, permutations=100, resamples=100)
    job = plan_trace(lineage, concepts, settings)
    told = estimate.estimate_trace(job, job.open_run(tmp_path / "run"))
    assert told.tokens_exact
    assert told.seconds > 0
    run = trace(lineage, concepts, tmp_path / "run", settings)
    taken = sum(path.stat().st_size for path in run.folder.glob("*/at-*"))
    assert 0.5 < told.disk_bytes / taken < 2
