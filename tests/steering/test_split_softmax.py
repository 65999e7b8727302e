"""Split-softmax, capping and guidance in real forward passes: identities, with and without a KV cache, whatever the padding."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ontogeny.activations.attention_mass import attention_mass
from ontogeny.errors import BadInput
from ontogeny.interventions import Cap, SplitSoftmax
from ontogeny.models.attention_patterns import AttentionCall, pattern_hooks
from ontogeny.steering.generate import DecodingConfig, continue_ids
from ontogeny.steering.log_likelihood import TokenizedAnswer, token_log_likelihoods
from ontogeny.steering.steer import Edit, split_softmax_everywhere, steer
from tests.helpers.tiny_models import outspoken

FAMILIES = ("gpt2", "llama", "gemma3_text", "bloom")
ROWS = [torch.tensor([5, 17, 40, 9, 201, 33, 61, 7]), torch.tensor([8, 8, 120, 64, 77])]
SYSTEM = [torch.arange(len(row)) < 3 for row in ROWS]
SAMPLED = {"tokens": 6, "temperature": 1.0, "samples": 2}
family = pytest.mark.parametrize("family", FAMILIES)


def patterns(model, row: torch.Tensor) -> list[torch.Tensor]:
    calls: list[AttentionCall] = []
    with torch.no_grad(), pattern_hooks(model, calls.append):
        model.network(row[None], use_cache=False)
    return [call.pattern[0] for call in calls]


def continued(model, edits=(), rows=ROWS, **how) -> list[list[list[int]]]:
    return [[ids.tolist() for ids in row] for row in continue_ids(model, rows, edits, DecodingConfig(**SAMPLED | how))]


@family
def test_k_of_one_is_the_model_bit_for_bit(family: str, tiny: Callable[..., Path]) -> None:
    model = outspoken(tiny(family))
    before = model.network.config._attn_implementation
    with torch.no_grad():
        plain = model.network(ROWS[0][None]).logits
        with steer(model, split_softmax_everywhere(model, 1.0, [SYSTEM[0]]), prompts=[8]):
            assert model.network.config._attn_implementation == before
            assert torch.equal(model.network(ROWS[0][None]).logits, plain)
    for cache in (True, False):
        nothing = continued(model, split_softmax_everywhere(model, 1.0, SYSTEM), cache=cache)
        assert nothing == continued(model, cache=cache)


@family
def test_share_of_the_chosen_tokens_becomes_its_power(family: str, tiny: Callable[..., Path]) -> None:
    """In the first block, whose scores no earlier edit changes; every row still sums to 1, and no token sees a later one."""
    model, k = outspoken(tiny(family)), 0.4
    plain = patterns(model, ROWS[0])
    with steer(model, split_softmax_everywhere(model, k, [SYSTEM[0]]), prompts=[8]):
        edited = patterns(model, ROWS[0])
    shares = [one[0][..., SYSTEM[0]].sum(-1) for one in (plain, edited)]
    inner = (shares[0] > 1e-6) & (shares[0] < 1 - 1e-6)
    assert inner.any()
    torch.testing.assert_close(shares[1][inner], shares[0][inner] ** k, rtol=1e-4, atol=1e-5)
    assert torch.equal(edited[0] == 0, plain[0] == 0)
    for pattern in edited:
        torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(edited[-1], plain[-1], atol=1e-3)


@family
def test_cache_and_padding_do_not_matter(family: str, tiny: Callable[..., Path]) -> None:
    model = outspoken(tiny(family))
    edits = split_softmax_everywhere(model, 0.3, SYSTEM)
    cached = continued(model, edits)
    assert cached == continued(model, edits, cache=False)
    alone = [
        continued(model, split_softmax_everywhere(model, 0.3, [mask]), [row])[0]
        for row, mask in zip(ROWS, SYSTEM, strict=True)
    ]
    assert cached == alone
    assert cached != continued(model)
    control = [edit.null(3) for edit in edits]
    assert continued(model, control) == continued(model, control, batch=1, cache=False)


def test_attention_mass_is_that_of_the_patterns_whatever_the_batch(tiny: Callable[..., Path]) -> None:
    model = outspoken(tiny("llama"))
    mass = attention_mass(model, ROWS, SYSTEM)
    for row, mask, share in zip(ROWS, SYSTEM, mass, strict=True):
        expected = torch.stack([pattern[..., mask].sum(-1) for pattern in patterns(model, row)])
        torch.testing.assert_close(share, expected, rtol=1e-4, atol=1e-5)
        assert share[..., :3].allclose(torch.ones(()))  # the system prompt itself sees nothing else
    with pytest.raises(BadInput, match="one value for each of 8 tokens of a text, got 3"):
        attention_mass(model, ROWS, [torch.ones(3, dtype=torch.bool), SYSTEM[1]])


def test_capping_keeps_tokens_in_range_and_caps_the_others(tiny: Callable[..., Path]) -> None:
    model = outspoken(tiny("gpt_neox"))
    axis = torch.zeros(model.d)
    axis[3] = 2.0
    seen: list[torch.Tensor] = []
    with torch.no_grad(), steer(model, [("resid.1", Cap.between(axis, low=0.1))]):
        handle = model.block(2).register_forward_pre_hook(lambda _, args: seen.append(args[0][0, :, 3].clone()))
        model.network(ROWS[0][None])
        handle.remove()
    assert seen[0].min() >= 0.1 - 1e-6
    assert seen[0].max() > 0.1 + 1e-3


@pytest.mark.parametrize("cache", [True, False])
def test_guidance_is_the_mixture_of_both_prompts(cache: bool, tiny: Callable[..., Path]) -> None:
    model, scale = outspoken(tiny("gpt_neox")), 1.7
    others = [row[3:] for row in ROWS]
    how = DecodingConfig(tokens=4, cache=cache)
    guided = continue_ids(model, ROWS, (), how, against=others, guidance=scale)
    for row, other, (new,) in zip(ROWS, others, guided, strict=True):
        for place in range(len(new)):
            with torch.no_grad():
                here, there = (
                    model.network(torch.cat([part, new[:place]])[None]).logits[0, -1] for part in (row, other)
                )
            assert int((scale * here - (scale - 1) * there).argmax()) == int(new[place])
    plain = continue_ids(model, ROWS, (), how)
    for same in (continue_ids(model, ROWS, (), how, against=others, guidance=1.0),):
        assert [a.tolist() for (a,) in same] == [a.tolist() for (a,) in plain]


def test_wrong_edits_are_refused(tiny: Callable[..., Path]) -> None:
    for make, words in (
        (lambda: SplitSoftmax(0.0), "`k` must be a finite number above 0, got 0.0"),
        (lambda: SplitSoftmax(float("nan")), "got nan"),
        (lambda: Cap.between(torch.ones(3), 2.0, 1.0), "`low` must be a number below `high`, got 2.0 and 1.0"),
        (lambda: Cap.between(torch.zeros(3), 1.0), "vector of zeros"),
    ):
        with pytest.raises(BadInput, match=words):
            make()
    bloom, neox = outspoken(tiny("bloom")), outspoken(tiny("gpt_neox"))
    unknown = replace(bloom, architecture=replace(bloom.architecture, own_attention=None))
    answer = [TokenizedAnswer(ROWS[0], 4)]
    with pytest.raises(BadInput, match="of bloom cannot be reached"):
        token_log_likelihoods(unknown, answer, split_softmax_everywhere(unknown, 0.5, [SYSTEM[0]]))
    with pytest.raises(BadInput, match="at attention sites only"):
        token_log_likelihoods(neox, answer, [("resid.1", SplitSoftmax(0.5))])
    control = [Edit(edit.site, edit.what.null(1), "prompt") for edit in split_softmax_everywhere(neox, 0.5, "prompt")]
    with pytest.raises(BadInput, match="needs one mask for each prompt"):
        token_log_likelihoods(neox, answer, control)
    with pytest.raises(BadInput, match="needs one other prompt for each of 2"):
        continue_ids(neox, ROWS, (), guidance=2.0)
    with pytest.raises(BadInput, match="`guidance` must be a finite number from 0 on, got -1"):
        continue_ids(neox, ROWS, (), against=ROWS, guidance=-1)
