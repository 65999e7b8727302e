"""Families without a table: inferred from their structure if that is correct, otherwise rejected in one line."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, ViTConfig, ViTModel

from ontogeny import architectures, plugins
from ontogeny.activations.capture import capture_workload
from ontogeny.activations.parity import parity_certificate
from ontogeny.activations.workload import build_workload
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.errors import BadInput
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models.model import load_model
from ontogeny.models.validation import validate_model
from tests.helpers.planted_lineages import rows, write
from tests.helpers.tiny_models import GROUPED, PLAIN, VOCAB, byte_tokenizer, save_tiny, tiny_model

TOKENS = dict(vocab_size=VOCAB, bos_token_id=0, eos_token_id=1, pad_token_id=2)
TOLD = {
    "gpt_neo": dict(hidden_size=32, attention_types=[[["global", "local"], 1]], num_layers=2, num_heads=4),
    "codegen": dict(n_embd=32, n_layer=2, n_head=4, rotary_dim=4),
    "cohere": GROUPED | dict(logit_scale=0.5),
    "smollm3": GROUPED,
    "nemotron": GROUPED,
    "gpt_bigcode": dict(n_embd=32, n_layer=2, n_head=4),
    "biogpt": PLAIN | dict(intermediate_size=64),
}
"""Families whose structure is sufficient, with their configs."""
REFUSED = {
    "phimoe": (GROUPED | dict(num_local_experts=2), "no MLP with a linear output layer"),
    "mamba": (PLAIN, "no attention with exactly one output projection"),
    "mpt": (dict(d_model=32, n_heads=4, n_layers=2), "neuron.1 through W_out differs from the model's own computation"),
    "granite": (GROUPED | dict(residual_multiplier=0.5), "sum of resid.0 and block 1's parts"),
    "glm4": (GROUPED | dict(head_dim=8), "sum of resid.0 and block 1's parts"),
}
LISTED = [
    t
    for n in plugins.list_plugins("architectures")
    for t in plugins.load_plugin("architectures", n).architecture.model_types
]
ADDED_INSIDE = {"bloom", "bert"}
"""Families with misleading module names, which need a table."""
MIXTURES = {"mixtral", "olmoe", "qwen3_moe", "qwen2_moe"}
"""Mixtures of experts need one, too: no linear layer writes the MLP; that of Qwen 2's shared expert only seems to."""


def saved(family, shape, folder):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **TOKENS, **shape)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", TOLD)
def test_unlisted_family_is_read_by_its_structure(family, tmp_path):
    model = load_model(saved(family, TOLD[family], tmp_path))
    assert model.architecture.is_inferred
    validate_model(model, answers=True)
    told = parity_certificate(model, [(5, 17, 40, 9), (8, 8, 120, 64, 77, 250), (3,), (12, 200)])
    assert told["holds"], told["differences"]
    assert told["architecture"] == {"type": family, "found_by": "structure"}


@pytest.mark.parametrize("family", REFUSED)
def test_rejects_ambiguous_structure_in_one_line(family, tmp_path):
    shape, why = REFUSED[family]
    with pytest.raises(BadInput, match=why) as error:
        validate_model(load_model(saved(family, shape, tmp_path)))
    assert "\n" not in str(error.value)
    assert f"no architecture table supports models of type '{family}'" in str(error.value)
    assert "llama" in str(error.value)
    assert "docs/add-an-architecture.md" in str(error.value)


def test_rejects_image_model(tmp_path):
    ViTModel(ViTConfig(**PLAIN, intermediate_size=64, image_size=8, patch_size=4)).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=r"vit reads images and has no tokenizer.*ontogeny\.models\.vision"):
        load_model(tmp_path)


def test_rejects_unknown_family_before_its_weights_are_read(tmp_path):
    folder = saved("phimoe", REFUSED["phimoe"][0], tmp_path)
    next(folder.glob("*.safetensors")).write_bytes(b"not weights")
    with pytest.raises(BadInput, match="no architecture table supports"):
        load_model(folder)


@pytest.mark.parametrize("family", LISTED)
def test_structure_agrees_with_table(family, tiny):
    """Control: for families with a table, the structure gives the same paths or fails the validation."""
    network = tiny_model(family)
    table, guess = architectures.architecture_of(network), architectures.infer_architecture(network)
    if family in ADDED_INSIDE | MIXTURES or isinstance(guess, str):
        assert family in ADDED_INSIDE | MIXTURES
        if family in MIXTURES and not isinstance(guess, str):
            with pytest.raises(BadInput, match="the architecture inferred from its structure is wrong"):
                validate_model(replace(load_model(tiny(family)), architecture=guess))
        return
    own = {"model_types": (), "attn_added": "", "mlp_added": "", "flat_mlp": False, "causal": True, "images": False}
    assert guess == replace(table, **own, own_attention=None)


def test_rejects_wrongly_inferred_architecture(tiny):
    model = load_model(tiny("olmo2"))
    guess = architectures.infer_architecture(model.network)
    with pytest.raises(BadInput, match="the architecture inferred from its structure is wrong"):
        validate_model(replace(model, architecture=guess))


def test_encoder_batches_texts_of_one_length_only(tiny):
    model = load_model(tiny("bert"))
    concept = Concept("c", tuple(Example("a" * n, n % 2 == 0, str(n)) for n in range(1, 30)))
    work, _ = build_workload([concept], model.tokenizer, model.context)
    counts = capture_workload(model, work, model.sites("resid")).counts
    assert counts.tokens == counts.real_tokens


def test_encoder_without_output_head_is_complete(tiny, tmp_path):
    model = load_model(tiny("bert"))
    model.network.base_model.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    bare = load_model(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        ours, theirs = (m.body(input_ids=ids).last_hidden_state for m in (bare, model))
    torch.testing.assert_close(ours, theirs)


def test_rejects_opt_with_post_norm(tmp_path):
    shape = PLAIN | dict(ffn_dim=64, word_embed_proj_dim=16, do_layer_norm_before=False)
    with pytest.raises(BadInput, match="opt"):
        validate_model(load_model(saved("opt", shape, tmp_path)))


@pytest.mark.parametrize("family", ["bert", "gemma2", "opt", "gpt_neo"])
def test_trace_records_how_the_architecture_was_found(family, tmp_path, tiny):
    for step, seed in ((1, 0), (2, 1)):
        made = save_tiny(family, tmp_path / "run" / f"step{step}", seed=seed) if family not in TOLD else None
        if made is None:
            saved(family, TOLD[family], tmp_path / "run" / f"step{step}")
    concept = Concept.from_file(write(tmp_path / "planted.csv", rows(characters=30)))
    quick = TraceSettings(
        sites="resid,head,attn_resid.2,mlp_resid.2", resamples=100, permutations=100, fits=("mass_mean",)
    )
    run = trace(Lineage.open(tmp_path / "run"), [concept], tmp_path / "out", quick)
    parity = run.about["parity"]
    assert parity["holds"], parity
    assert parity["checkpoint"] == "step1"
    found_by = "structure" if family in TOLD else "table"
    assert parity["architecture"] == {"type": family, "found_by": found_by}
    sites = set(run.records("metric = 'auroc' and control is null and value is not null").site)
    assert {"resid.0", "resid.2", "head.1.3", "attn_resid.2", "mlp_resid.2"} <= sites
