"""Every architecture: reads equal Hugging Face's numbers, and all hooks are removed."""

import pytest
import torch

from ontogeny import plugins
from ontogeny.activations.batching import ActivationRead, ScoredAnswer, Workload
from ontogeny.activations.capture import capture_workload
from ontogeny.errors import BadInput
from ontogeny.models import vision
from ontogeny.models.hooks import read_hooks, write_hooks
from ontogeny.models.model import attention_output_bias, head_contributions, load_model, untrained_model
from ontogeny.models.onednn import packed_linears
from ontogeny.models.validation import validate_model
from ontogeny.sites import Site
from tests.helpers.tiny_models import PICTURES

FAMILIES = [
    t
    for name in plugins.list_plugins("architectures")
    for t in plugins.load_plugin("architectures", name).architecture.model_types
]
IDS = torch.tensor([[5, 17, 40, 9, 201, 33], [8, 8, 120, 64, 77, 250]])
PIXELS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
pytestmark = pytest.mark.parametrize("family", FAMILIES, scope="module")


@pytest.fixture(scope="module")
def model(family, tiny):
    """One for all tests of a family: none of them leaves a trace."""
    opened = vision.load_image_model if family in PICTURES else load_model
    made = opened(tiny(family))
    yield made
    assert sum(len(m._forward_pre_hooks) for m in made.network.modules()) == 0
    fresh, left = opened(tiny(family)).network.state_dict(), made.network.state_dict()
    assert fresh.keys() == left.keys()
    assert all(torch.equal(fresh[name], left[name]) for name in fresh)


def given(model):
    return {"pixel_values": PIXELS} if model.architecture.images else {"input_ids": IDS, "use_cache": False}


def texts_only(model):
    if model.architecture.images:
        pytest.skip("it reads no texts; tests/models/test_vision.py tests images")


def read(model, *wanted):
    seen = {}
    with (
        read_hooks(model, wanted, lambda part, layer, value: seen.__setitem__((part, layer), value.detach().clone())),
        torch.no_grad(),
    ):
        model.network(**given(model))
    return seen


def logits(model):
    with torch.no_grad():
        return model.network(**given(model)).logits


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.network.modules())


def test_passes_its_own_validation(model):
    validate_model(model, answers=model.architecture.causal)


def test_reads_equal_hidden_states(model):
    with torch.no_grad():
        theirs = model.network(**given(model), output_hidden_states=True).hidden_states
    ours = read(model, *[("resid", layer) for layer in range(model.layers + 1)])
    for layer in range(model.layers):
        torch.testing.assert_close(ours["resid", layer], theirs[layer], rtol=5e-6, atol=0)
    # Theirs is after the final norm, ours before; that of an image model is before, too.
    if model.architecture.images:
        torch.testing.assert_close(ours["resid", model.layers], theirs[-1], rtol=5e-6, atol=0)
        return
    same = torch.allclose(ours["resid", model.layers], theirs[-1], rtol=1e-2)
    assert same == (not model.architecture.final_norm)


def test_no_op_write_is_bit_identical_and_an_edit_is_not(model):
    plain = logits(model)
    names = ("resid.0", "resid.2", "attn.1", "mlp.2", "attn_resid.2", "mlp_resid.1", "head.1.3", "neuron.2")
    for site in map(Site.parse, names):
        with write_hooks(model, site, lambda h: h):
            assert torch.equal(logits(model), plain), site
        with write_hooks(model, site, lambda h: h + 1.0):
            assert not torch.equal(logits(model), plain), site


def test_heads_through_output_sum_to_attention(model):
    seen = read(model, ("head", 2), ("attn", 2))
    through = head_contributions(model, 2, seen["head", 2]).sum(-2) + attention_output_bias(model, 2)
    torch.testing.assert_close(through, seen["attn", 2], rtol=1e-5, atol=1e-6)


def test_head_write_changes_that_head_only(model):
    before = read(model, ("head", 1))["head", 1].unflatten(-1, (model.heads, -1))
    with write_hooks(model, Site("head", 1, 2), torch.zeros_like):
        after = read(model, ("head", 1))["head", 1].unflatten(-1, (model.heads, -1))
    assert not after[..., 2, :].any()
    others = [0, 1, 3]
    assert torch.equal(after[..., others, :], before[..., others, :])


def test_reads_see_earlier_writes(model):
    with write_hooks(model, Site("resid", 1), torch.zeros_like):
        assert not read(model, ("resid", 1))["resid", 1].any()


def test_hooks_are_removed_after_an_exception(model):
    # Hugging Face keeps its own hooks from its first output_hidden_states on; only ours must not stay.
    before = hooks(model)
    logits(model)

    def fail(h):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"), write_hooks(model, Site("resid", 1), fail):
        logits(model)
    assert hooks(model) == before


def test_rejects_a_wrong_table(model):
    from dataclasses import replace

    wrong = replace(model, architecture=replace(model.architecture, heads_out=model.architecture.neurons))
    with pytest.raises(BadInput, match="does not fit its architecture table"):
        validate_model(wrong)


def texts():
    """Texts of several lengths, longer than the windows that some families look through; some share a beginning that pays."""
    draw = torch.Generator().manual_seed(0)
    fresh = [torch.randint(3, 300, (n,), generator=draw).tolist() for n in (5, 5, 9, 9, 9, 10, 24, 60)]
    return [*map(tuple, fresh), *(tuple(fresh[-1][:50] + fresh[i]) for i in range(7))]


def pools(sequences):
    """Two reads of each text: its last token, and the mean over all."""
    last = [ActivationRead(i, torch.eye(len(s))[-1]) for i, s in enumerate(sequences)]
    return last, [ActivationRead(i, torch.full((len(s),), 1 / len(s))) for i, s in enumerate(sequences)]


@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_capture_in_any_batch_equals_hugging_face(model, budget):
    texts_only(model)
    sequences = texts()
    with torch.no_grad():
        alone = [model.network(torch.tensor([s]), output_hidden_states=True).hidden_states for s in sequences]
    for how, reads in zip(("last", "mean"), pools(sequences), strict=True):
        expected = torch.stack(
            [torch.stack([h[0, -1] if how == "last" else h[0].mean(0) for h in a]) for a in alone], 1
        )
        for patterns in ("resid", "resid.1"):  # in the second, the last wanted block is the first
            sites = model.sites(patterns)
            found = capture_workload(model, Workload(tuple(sequences), tuple(reads)), sites, token_budget=budget)
            for place, site in enumerate(sites):
                if site.layer < model.layers:
                    far = (found.parts["resid"][place] - expected[site.layer]).abs().max()
                    assert far <= 1e-5 * expected[site.layer].abs().max(), (how, site, float(far))
    assert (expected[1].roll(1, 0) - expected[1]).abs().max() > 1e-2 * expected[1].abs().max()  # the control


def test_parts_sum_to_the_residual_stream(model):
    seen = read(model, ("resid", 1), ("resid", 2), ("attn", 2), ("mlp", 2), ("attn_resid", 2), ("mlp_resid", 2))
    moved = seen["resid", 2] - seen["resid", 1]
    added = seen["attn_resid", 2] + seen["mlp_resid", 2]
    raw = seen["attn", 2] + seen["mlp", 2]
    assert torch.allclose(moved, added, rtol=1e-4, atol=1e-5) == bool(model.architecture.final_norm)
    assert torch.equal(added, raw) == (not model.architecture.attn_added)


def test_answer_scores_match_the_whole_model(model):
    texts_only(model)
    sequences = texts()
    asked = Workload(tuple(sequences), scored=tuple(ScoredAnswer(i, len(s) - 2) for i, s in enumerate(sequences)))
    if not model.architecture.causal:
        with pytest.raises(BadInput, match="must be causal to score answers"):
            capture_workload(model, asked, [])
        return
    found = capture_workload(model, asked, []).answers
    for i, s in enumerate(sequences):
        with torch.no_grad():
            likely = model.network(torch.tensor([s])).logits[0].log_softmax(-1)
        by_hand = sum(float(likely[at - 1, s[at]]) for at in (len(s) - 2, len(s) - 1))
        assert float(found[i]) == pytest.approx(by_hand, rel=1e-5)
        assert float(found[i]) != pytest.approx(sum(float(likely[at, s[at]]) for at in (-2, -1)), rel=1e-5)


def test_untrained_model_has_the_shape_and_other_weights(model, family, tiny):
    other = (vision.untrained_image_model if family in PICTURES else untrained_model)(tiny(family), seed=3)
    assert (other.layers, other.heads, other.d, other.d_head) == (model.layers, model.heads, model.d, model.d_head)
    validate_model(other)
    assert not torch.equal(read(other, ("resid", 2))["resid", 2], read(model, ("resid", 2))["resid", 2])


def test_layers_are_packed(model, family):
    plain = read(model, ("resid", 2))["resid", 2]
    with packed_linears(model.body) as count, torch.inference_mode():
        packed = read(model, ("resid", 2))["resid", 2]
    assert count >= 2 * 4 or family == "falcon"  # whose linear map is a class of its own, and stays plain
    torch.testing.assert_close(packed, plain, rtol=1e-5, atol=1e-5 * float(plain.abs().max()))
