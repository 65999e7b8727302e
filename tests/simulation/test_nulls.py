"""Family-wise error and false-discovery rate are at their nominal level, with power above it."""

import torch

from ontogeny.statistics.fdr import q_values
from ontogeny.statistics.permutation import auroc_test, familywise_p, group_permutations

SETS = 300


def sweep(g: torch.Generator, *, gap: float, cells: int = 24) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Groups of mixed and of one label, scores that correlate over cells and inside groups; the first cells know the label."""
    groups = torch.arange(60).repeat_interleave(2)
    pure = (torch.rand(60, generator=g) < 0.5)[groups]
    y = torch.where(groups < 30, torch.arange(120) % 2 == 0, pure)
    common = torch.randn(1, 60, generator=g)[:, groups] + torch.randn(1, 120, generator=g)
    scores = common + torch.randn(cells, 60, generator=g)[:, groups] + torch.randn(cells, 120, generator=g)
    scores[: cells // 4] += gap * y
    return groups, y, scores


def first_errors(*, gap: float, blind: bool = False) -> tuple[float, float]:
    """Shares of sweeps with a false family-wise hit, and with a true one in the cells that know the label."""
    g = torch.Generator().manual_seed(0)
    false, true = 0, 0
    for seed in range(SETS):
        groups, y, scores = sweep(g, gap=gap)
        index = group_permutations(y, torch.arange(120) if blind else groups, samples=199, seed=seed)
        early, late = auroc_test(scores[:12], y, y[index]), auroc_test(scores[12:], y, y[index])
        p = familywise_p(torch.cat([early.observed, late.observed]), torch.maximum(early.maxima, late.maxima))
        false += bool((p[6 if gap else 0 :] <= 0.05).any())
        true += bool((p[:6] <= 0.05).any())
    return false / SETS, true / SETS


def test_max_statistic_has_nominal_level_and_power():
    assert 0.01 < first_errors(gap=0.0)[0] <= 0.07
    false, true = first_errors(gap=2.5)
    assert false <= 0.07
    assert true > 0.9


def test_permutations_that_ignore_groups_exceed_their_level():
    g = torch.Generator().manual_seed(0)
    rate = {True: 0, False: 0}
    groups = torch.arange(30).repeat_interleave(4)
    for seed in range(SETS):
        y = (torch.rand(30, generator=g) < 0.5)[groups]
        scores = (torch.randn(1, 30, generator=g)[:, groups] * 2) + torch.randn(1, 120, generator=g)
        for blind in (True, False):
            index = group_permutations(y, torch.arange(120) if blind else groups, samples=199, seed=seed)
            rate[blind] += int(auroc_test(scores, y, y[index]).p[0] <= 0.05)
    assert rate[False] / SETS <= 0.08
    assert rate[True] / SETS > 0.12


def test_false_discoveries_stay_below_q():
    g = torch.Generator().manual_seed(0)
    for true in (0, 10, 40):
        rates, power = [], []
        for _ in range(SETS * 2):
            z = torch.randn(60, generator=g, dtype=torch.float64) * 0.8 + 0.6 * torch.randn(
                1, generator=g, dtype=torch.float64
            )
            z[:true] += 3
            found = q_values(1 - torch.special.ndtr(z)) <= 0.1
            rates.append(float(found[true:].sum() / found.sum().clamp(min=1)))
            power.append(float(found[:true].float().mean()) if true else 1.0)
        assert sum(rates) / len(rates) <= 0.1 + 0.02
        assert sum(power) / len(power) > 0.6
    uncorrected = 1 - torch.special.ndtr(torch.randn(SETS, 60, generator=g))
    assert (uncorrected <= 0.1).any(1).float().mean() > 0.9


def test_permutation_p_is_uniform_under_null():
    g = torch.Generator().manual_seed(1)
    p = []
    for seed in range(SETS):
        groups, y, scores = sweep(g, gap=0.0, cells=4)
        index = group_permutations(y, groups, samples=99, seed=seed)
        p.append(auroc_test(scores, y, y[index]).p)
    flat = torch.cat(p)
    for level in (0.05, 0.2, 0.5):
        assert abs((flat <= level).double().mean() - level) < 0.06
