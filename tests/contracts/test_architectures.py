"""Every architecture meets the contract in `ontogeny.testing`: reads equal Hugging Face's numbers, and all hooks are removed."""

import pytest
import torch

from ontogeny import plugins
from ontogeny.models import vision
from ontogeny.models.hooks import read_hooks
from ontogeny.models.model import load_model, untrained_model
from ontogeny.models.onednn import packed_linears
from ontogeny.models.validation import validate_model
from ontogeny.testing import ARCHITECTURE_CLAUSES
from tests.helpers.tiny_models import PICTURES

FAMILIES = [
    t
    for name in plugins.list_plugins("architectures")
    for t in plugins.load_plugin("architectures", name).architecture.model_types
]
IDS = torch.tensor([[5, 17, 40, 9, 201, 33], [8, 8, 120, 64, 77, 250]])
PIXELS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
each_family = pytest.mark.parametrize("family", FAMILIES, scope="module")


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


def read(model, *wanted):
    seen = {}
    given = {"pixel_values": PIXELS} if model.architecture.images else {"input_ids": IDS, "use_cache": False}
    with (
        read_hooks(model, wanted, lambda part, layer, value: seen.__setitem__((part, layer), value.detach().clone())),
        torch.no_grad(),
    ):
        model.network(**given)
    return seen


@pytest.mark.parametrize("clause", ARCHITECTURE_CLAUSES, ids=lambda clause: clause.__name__)
@each_family
def test_architecture_meets_the_contract(model, family, clause):
    clause(model)


@each_family
def test_untrained_model_has_the_shape_and_other_weights(model, family, tiny):
    other = (vision.untrained_image_model if family in PICTURES else untrained_model)(tiny(family), seed=3)
    assert (other.layers, other.heads, other.d, other.d_head) == (model.layers, model.heads, model.d, model.d_head)
    validate_model(other)
    assert not torch.equal(read(other, ("resid", 2))["resid", 2], read(model, ("resid", 2))["resid", 2])


@each_family
def test_layers_are_packed(model, family):
    plain = read(model, ("resid", 2))["resid", 2]
    with packed_linears(model.body) as count, torch.inference_mode():
        packed = read(model, ("resid", 2))["resid", 2]
    assert count >= 2 * 4 or family == "falcon"  # whose linear map is a class of its own, and stays plain
    torch.testing.assert_close(packed, plain, rtol=1e-5, atol=1e-5 * float(plain.abs().max()))
