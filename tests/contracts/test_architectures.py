"""Whatever lies in architectures/ reads what Hugging Face computes, and leaves no trace."""

import pytest
import torch

from ontogeny import plugins
from ontogeny.errors import BadInput
from ontogeny.model import heads_through_output, load, output_bias, reading, validate, writing
from ontogeny.sites import Site

FAMILIES = [
    t for name in plugins.names("architectures") for t in plugins.load("architectures", name).architecture.model_types
]
IDS = torch.tensor([[5, 17, 40, 9, 201, 33], [8, 8, 120, 64, 77, 250]])
pytestmark = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture
def model(family, tiny):
    return load(tiny(family))


def read(model, *wanted):
    seen = {}
    with (
        reading(model, wanted, lambda part, layer, value: seen.__setitem__((part, layer), value.detach().clone())),
        torch.no_grad(),
    ):
        model.network(IDS, use_cache=False)
    return seen


def logits(model):
    with torch.no_grad():
        return model.network(IDS, use_cache=False).logits


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.network.modules())


def test_passes_its_own_validation(model):
    validate(model)


def test_reads_equal_hidden_states(model):
    with torch.no_grad():
        theirs = model.network(IDS, output_hidden_states=True).hidden_states
    ours = read(model, *[("resid", layer) for layer in range(model.layers + 1)])
    for layer in range(model.layers):
        torch.testing.assert_close(ours["resid", layer], theirs[layer], rtol=5e-6, atol=0)
    # Theirs is after the final norm, ours before.
    same = torch.allclose(ours["resid", model.layers], theirs[-1], rtol=1e-2)
    assert same == (not model.architecture.final_norm)


def test_no_op_write_is_bit_identical_and_an_edit_is_not(model):
    plain = logits(model)
    names = ("resid.0", "resid.2", "attn.1", "mlp.2", "attn_resid.2", "mlp_resid.1", "head.1.3", "neuron.2")
    for site in map(Site.parse, names):
        with writing(model, site, lambda h: h):
            assert torch.equal(logits(model), plain), site
        with writing(model, site, lambda h: h + 1.0):
            assert not torch.equal(logits(model), plain), site


def test_heads_through_output_sum_to_attention(model):
    seen = read(model, ("head", 2), ("attn", 2))
    through = heads_through_output(model, 2, seen["head", 2]).sum(-2) + output_bias(model, 2)
    torch.testing.assert_close(through, seen["attn", 2], rtol=1e-5, atol=1e-6)


def test_a_head_write_touches_that_head_alone(model):
    before = read(model, ("head", 1))["head", 1].unflatten(-1, (model.heads, -1))
    with writing(model, Site("head", 1, 2), torch.zeros_like):
        after = read(model, ("head", 1))["head", 1].unflatten(-1, (model.heads, -1))
    assert not after[..., 2, :].any()
    others = [0, 1, 3]
    assert torch.equal(after[..., others, :], before[..., others, :])


def test_reads_see_what_writes_did(model):
    with writing(model, Site("resid", 1), torch.zeros_like):
        assert not read(model, ("resid", 1))["resid", 1].any()


def test_hooks_are_gone_also_after_an_exception(model):
    # Hugging Face keeps its own hooks from its first output_hidden_states on; only ours must not stay.
    before = hooks(model)
    logits(model)

    def fail(h):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"), writing(model, Site("resid", 1), fail):
        logits(model)
    assert hooks(model) == before


def test_a_wrong_table_is_refused(model):
    from dataclasses import replace

    wrong = replace(model, architecture=replace(model.architecture, heads_out=model.architecture.neurons))
    with pytest.raises(BadInput, match="does not fit its architecture table"):
        validate(wrong)
