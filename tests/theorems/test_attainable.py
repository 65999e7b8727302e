"""Too few controls to tell: the bound on q and the number of controls, over numbers of effects and controls."""

import pytest
import torch

from ontogeny.statistics.attainable import controls_needed, least_control_p, least_q, least_q_beside, too_few_controls
from ontogeny.statistics.fdr import q_values
from ontogeny.statistics.nulls import null_p_value

LEVEL = 0.05
EFFECTS = (1, 2, 3, 7, 20, 80, 154, 1000)


@pytest.mark.parametrize("controls", [1, 5, 19, 20, 200])
def test_no_effect_has_a_smaller_p_than_one_beyond_all_controls(controls: int) -> None:
    draws = torch.randn(controls, generator=torch.Generator().manual_seed(0)).double()
    values = [*torch.linspace(-5, 5, 101).tolist(), 1e9, -1e9]
    found = [null_p_value(value, draws) for value in values]
    assert min(found) == found[-1] == least_control_p(controls)


@pytest.mark.parametrize("effects", EFFECTS)
def test_needed_controls_make_a_lone_effect_significant_and_one_less_does_not(effects: int) -> None:
    needed = controls_needed(effects, LEVEL)
    for controls, significant in ((needed, True), (needed - 1, False)):
        p = torch.ones(effects, dtype=torch.float64)
        p[effects // 2] = least_control_p(controls)
        q = q_values(p)[effects // 2].item()
        assert (q < LEVEL - 1e-12) == significant
        assert q == pytest.approx(least_q(effects, controls))


@pytest.mark.parametrize("effects", EFFECTS)
def test_needed_controls_suffice_whatever_the_other_effects_are(effects: int) -> None:
    generator, needed = torch.Generator().manual_seed(effects), controls_needed(effects, LEVEL)
    for _ in range(10):
        others = torch.randint(1, needed + 2, (effects,), generator=generator).double() / (needed + 1)
        p = others**2
        p[0] = least_control_p(needed)
        assert q_values(p.clamp(min=least_control_p(needed)))[0] < LEVEL


def test_least_q_is_a_bound_over_all_values_of_one_effect() -> None:
    generator, controls = torch.Generator().manual_seed(3), 30
    for effects in (2, 5, 12):
        p = torch.randint(1, controls + 2, (effects,), generator=generator).double() / (controls + 1)
        for at in range(effects):
            tried = []
            for rank in range(1, controls + 2):
                p_with = p.clone()
                p_with[at] = rank / (controls + 1)
                tried.append(q_values(p_with)[at].item())
            assert least_q_beside(p, at, controls) == min(tried)


def test_an_effect_that_could_have_been_significant_is_told() -> None:
    """20 effects, 200 controls: one beyond all of them cannot be significant alone, and can beside others like it."""
    alone = torch.tensor([1 / 201, *[0.5] * 19])
    counts = torch.full((20,), 200.0)
    assert too_few_controls(alone, counts, LEVEL) == [True, *[False] * 19], "the others are inside their controls"
    together = torch.tensor([1 / 201] * 3 + [9 / 201] + [0.5] * 16)
    assert q_values(together)[0] <= LEVEL < q_values(together)[3]
    assert not any(too_few_controls(together, counts, LEVEL)), "the fourth could have been among them"
    assert too_few_controls(torch.tensor([1.0, 0.2]), torch.tensor([3.0, 200.0]), LEVEL) == [True, False]
    assert too_few_controls(torch.tensor([torch.nan, 0.01]), torch.tensor([0.0, 200.0]), LEVEL) == [False, False]


@pytest.mark.parametrize("effects", EFFECTS)
@pytest.mark.parametrize("share", [0.5, 0.9, 1.0, 2.0])
def test_nothing_is_untold_from_the_needed_number_on(effects: int, share: float) -> None:
    controls = max(1, int(controls_needed(effects, LEVEL) * share))
    p = torch.ones(effects, dtype=torch.float64)
    p[0] = least_control_p(controls)
    untold = too_few_controls(p, torch.full((effects,), float(controls)), LEVEL)[0]
    assert untold == (controls < controls_needed(effects, LEVEL))
