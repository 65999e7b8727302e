"""Contract of an architecture: reads equal the numbers of transformers, writes change what they should, and all hooks are removed."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ontogeny.activations.batching import ActivationRead, ScoredAnswer, Workload
from ontogeny.activations.capture import capture_workload
from ontogeny.errors import BadInput
from ontogeny.models import vision
from ontogeny.models.hooks import read_hooks, write_hooks
from ontogeny.models.loading import read_config
from ontogeny.models.model import Model, attention_output_bias, head_contributions, load_model
from ontogeny.models.validation import validate_model
from ontogeny.sites import Site
from ontogeny.testing._contract import Clause, rejects, run_clauses

_IDS = torch.tensor([[5, 17, 40, 9, 201, 33], [8, 8, 120, 64, 77, 250]])
_PIXELS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def _given(model: Model) -> dict[str, Any]:
    return {"pixel_values": _PIXELS} if model.architecture.images else {"input_ids": _IDS, "use_cache": False}


def _read(model: Model, *wanted: tuple[str, int]) -> dict[tuple[str, int], Tensor]:
    seen: dict[tuple[str, int], Tensor] = {}
    with (
        read_hooks(model, wanted, lambda part, layer, value: seen.__setitem__((part, layer), value.detach().clone())),
        torch.no_grad(),
    ):
        model.network(**_given(model))
    return seen


def _logits(model: Model) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.network(**_given(model)).logits
        return logits


def _hooks(model: Model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.network.modules())


def passes_its_validation(model: Model) -> None:
    validate_model(model, answers=model.architecture.causal)


def reads_the_hidden_states_of_transformers(model: Model) -> None:
    with torch.no_grad():
        theirs = model.network(**_given(model), output_hidden_states=True).hidden_states
    ours = _read(model, *[("resid", layer) for layer in range(model.layers + 1)])
    for layer in range(model.layers):
        torch.testing.assert_close(ours["resid", layer], theirs[layer], rtol=5e-6, atol=0)
    # Theirs is after the final norm, ours before; that of an image model is before, too.
    if model.architecture.images:
        torch.testing.assert_close(ours["resid", model.layers], theirs[-1], rtol=5e-6, atol=0)
        return
    same = torch.allclose(ours["resid", model.layers], theirs[-1], rtol=1e-2)
    assert same == (not model.architecture.final_norm)


def changes_nothing_by_a_write_of_the_same(model: Model) -> None:
    plain = _logits(model)
    names = ["resid.0", "resid.2", "attn.1", "mlp.2", "attn_resid.2", "mlp_resid.1", "head.1.3"]
    names += ["neuron.2"] if model.architecture.neurons else []
    for site in map(Site.parse, names):
        with write_hooks(model, site, lambda h: h):
            assert torch.equal(_logits(model), plain), site
        with write_hooks(model, site, lambda h: h + 1.0):
            assert not torch.equal(_logits(model), plain), site


def has_heads_that_sum_to_the_attention_output(model: Model) -> None:
    seen = _read(model, ("head", 2), ("attn", 2))
    through = head_contributions(model, 2, seen["head", 2]).sum(-2) + attention_output_bias(model, 2)
    torch.testing.assert_close(through, seen["attn", 2], rtol=1e-5, atol=1e-6)


def writes_one_head_alone(model: Model) -> None:
    before = _read(model, ("head", 1))["head", 1].unflatten(-1, (model.heads, -1))
    with write_hooks(model, Site("head", 1, 2), torch.zeros_like):
        after = _read(model, ("head", 1))["head", 1].unflatten(-1, (model.heads, -1))
    assert not after[..., 2, :].any()
    others = [0, 1, 3]
    assert torch.equal(after[..., others, :], before[..., others, :])


def reads_what_was_written_before(model: Model) -> None:
    with write_hooks(model, Site("resid", 1), torch.zeros_like):
        assert not _read(model, ("resid", 1))["resid", 1].any()


def removes_its_hooks_after_an_exception(model: Model) -> None:
    # Hugging Face keeps its own hooks from its first output_hidden_states on; only ours must not stay.
    before = _hooks(model)
    _logits(model)

    def fail(h: Tensor) -> Tensor:
        raise RuntimeError("on purpose")

    with rejects(RuntimeError, "on purpose"), write_hooks(model, Site("resid", 1), fail):
        _logits(model)
    assert _hooks(model) == before


def is_refused_with_a_wrong_table(model: Model) -> None:
    other = model.architecture.neurons or "self_attn.q_proj"
    wrong = replace(model, architecture=replace(model.architecture, heads_out=other))
    with rejects(BadInput, "does not fit its architecture table"):
        validate_model(wrong)


def _texts() -> list[tuple[int, ...]]:
    """Texts of several lengths, longer than the windows that some families look through; some share a beginning that pays."""
    draw = torch.Generator().manual_seed(0)
    fresh = [torch.randint(3, 300, (n,), generator=draw).tolist() for n in (5, 5, 9, 9, 9, 10, 24, 60)]
    return [*map(tuple, fresh), *(tuple(fresh[-1][:50] + fresh[i]) for i in range(7))]


def _pools(sequences: Sequence[tuple[int, ...]]) -> tuple[list[ActivationRead], list[ActivationRead]]:
    """Two reads of each text: its last token, and the mean over all."""
    last = [ActivationRead(i, torch.eye(len(s))[-1]) for i, s in enumerate(sequences)]
    return last, [ActivationRead(i, torch.full((len(s),), 1 / len(s))) for i, s in enumerate(sequences)]


def captures_the_same_in_any_batch(model: Model, budgets: Sequence[int] = (1, 60, 10_000)) -> None:
    if model.architecture.images:
        return
    sequences = _texts()
    with torch.no_grad():
        alone = [model.network(torch.tensor([s]), output_hidden_states=True).hidden_states for s in sequences]
    for how, reads in zip(("last", "mean"), _pools(sequences), strict=True):
        expected = torch.stack(
            [torch.stack([h[0, -1] if how == "last" else h[0].mean(0) for h in a]) for a in alone], 1
        )
        for patterns in ("resid", "resid.1"):  # in the second, the last wanted block is the first
            sites = model.sites(patterns)
            for budget in budgets:
                found = capture_workload(model, Workload(tuple(sequences), tuple(reads)), sites, token_budget=budget)
                for place, site in enumerate(sites):
                    if site.layer < model.layers:
                        far = (found.parts["resid"][place] - expected[site.layer]).abs().max()
                        assert far <= 1e-5 * expected[site.layer].abs().max(), (how, site, float(far))
    assert (expected[1].roll(1, 0) - expected[1]).abs().max() > 1e-2 * expected[1].abs().max()  # the control


def has_parts_that_sum_to_the_residual_stream(model: Model) -> None:
    seen = _read(model, ("resid", 1), ("resid", 2), ("attn", 2), ("mlp", 2), ("attn_resid", 2), ("mlp_resid", 2))
    moved = seen["resid", 2] - seen["resid", 1]
    added = seen["attn_resid", 2] + seen["mlp_resid", 2]
    raw = seen["attn", 2] + seen["mlp", 2]
    assert torch.allclose(moved, added, rtol=1e-4, atol=1e-5) == bool(model.architecture.final_norm)
    assert torch.equal(added, raw) == (not model.architecture.attn_added)


def scores_answers_as_the_whole_model(model: Model) -> None:
    if model.architecture.images:
        return
    sequences = _texts()
    asked = Workload(tuple(sequences), scored=tuple(ScoredAnswer(i, len(s) - 2) for i, s in enumerate(sequences)))
    if not model.architecture.causal:
        with rejects(BadInput, "must be causal to score answers"):
            capture_workload(model, asked, [])
        return
    found = capture_workload(model, asked, []).answers
    for i, s in enumerate(sequences):
        with torch.no_grad():
            likely = model.network(torch.tensor([s])).logits[0].log_softmax(-1)
        by_hand = sum(float(likely[at - 1, s[at]]) for at in (len(s) - 2, len(s) - 1))
        shifted = sum(float(likely[at, s[at]]) for at in (-2, -1))
        assert math.isclose(float(found[i]), by_hand, rel_tol=1e-5)
        assert not math.isclose(float(found[i]), shifted, rel_tol=1e-5)


def reads_the_router_logits_of_transformers(model: Model) -> None:
    """Of a mixture of experts, in one pass and captured in batches; other models and dense blocks have no router."""
    if not model.architecture.router:
        with rejects(BadInput, "got router"):
            model.sites("router.1")
        return
    with torch.no_grad():
        theirs = model.network(**_given(model), output_router_logits=True).router_logits
    layers = model.routed_layers
    assert layers
    assert len(layers) == len(theirs)
    ours = _read(model, *[("router", layer) for layer in layers])
    for layer, logits in zip(layers, theirs, strict=True):
        assert ours["router", layer].shape[:2] == _IDS.shape
        assert torch.equal(ours["router", layer].flatten(0, 1), logits)
    with rejects(BadInput, "neurons of their own"):
        model.sites("neuron")
    with rejects(BadInput, "can be read and not changed"), write_hooks(model, Site("router", layers[0]), lambda h: h):
        pass
    sequences = _texts()
    last, mean = _pools(sequences)
    sites = [Site("router", layer) for layer in layers]
    for pool, reads in (("last", last), ("mean", mean)):
        found = capture_workload(model, Workload(tuple(sequences), tuple(reads)), sites, token_budget=60).parts[
            "router"
        ]
        for i, ids in enumerate(sequences):
            with torch.no_grad():
                alone = model.network(torch.tensor([ids]), output_router_logits=True).router_logits
            for place, logits in enumerate(alone):
                expected = logits[-1] if pool == "last" else logits.mean(0)
                torch.testing.assert_close(found[place, i], expected, rtol=1e-4, atol=1e-5)


ARCHITECTURE_CLAUSES: tuple[Clause, ...] = (
    passes_its_validation,
    reads_the_hidden_states_of_transformers,
    changes_nothing_by_a_write_of_the_same,
    has_heads_that_sum_to_the_attention_output,
    writes_one_head_alone,
    reads_what_was_written_before,
    removes_its_hooks_after_an_exception,
    is_refused_with_a_wrong_table,
    captures_the_same_in_any_batch,
    has_parts_that_sum_to_the_residual_stream,
    scores_answers_as_the_whole_model,
    reads_the_router_logits_of_transformers,
)


def check_architecture(folder: str | Path) -> None:
    """Check the architecture of a small model against the contract.

    Args:
        folder: A saved model of the family with random weights: 2 blocks, 4 heads, a vocabulary of at least 300 tokens, a tokenizer, and
            biases and norms away from 0 and 1, so that leaving one out shows.

    Raises:
        AssertionError: a clause does not hold; a note says which.
        BadInput: the family has no table.
    """
    config = read_config(Path(folder))
    images = hasattr(config, "image_size")
    model = vision.load_image_model(Path(folder)) if images else load_model(Path(folder))
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    run_clauses("architecture", config.model_type, ARCHITECTURE_CLAUSES, model)
    after = model.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items()), "the weights must stay the same"
