"""Simulated reports in which nothing happens: how many of them claim an event or a phase.

A report has several concepts in three stages of 12, 7 and 9 checkpoints, as the demo has. Scores of 60 held-out examples in 30 groups
have noise that is shared between the checkpoints by a half; the curves of a concept's layers and kernels share most of theirs.
"""

import math
from collections.abc import Iterator
from functools import cache

import torch

from ontogeny.statistics.bootstrap import auroc_samples, group_weights
from ontogeny.statistics.change_points import familywise_phases, fit_bend
from ontogeny.statistics.emergence import EmergenceEvent, correct_events, emergence_event, loss_event
from ontogeny.statistics.holm import holm_p
from ontogeny.statistics.permutation import auroc_test, group_permutations, least_labelling_p, tail_p

STAGES = (12, 7, 9)
GROUPS, RESAMPLES, SHARED = 30, 200, 0.5


def steps_of(count: int) -> torch.Tensor:
    return torch.tensor(sorted({0, *[round(40 * 2 ** (5 * i / (count - 2))) for i in range(count - 1)]}))


@cache
def labels() -> tuple[torch.Tensor, torch.Tensor]:
    """Labels of twins in 30 groups, and 500 permutations of them."""
    y, groups = torch.arange(2 * GROUPS) % 2 == 0, torch.arange(2 * GROUPS) // 2
    return y, y[group_permutations(y, groups, samples=500)]


def concept_events(gap: float, generator: torch.Generator, seed: int, find=emergence_event) -> list[EmergenceEvent]:
    """One event a stage of a concept whose classes are `gap` apart at every checkpoint."""
    y, permuted = labels()
    groups = torch.arange(len(y)) // 2
    weights = group_weights(groups, samples=RESAMPLES, seed=seed)
    found = []
    for count in STAGES:
        common, own = torch.randn(1, len(y), generator=generator), torch.randn(count, len(y), generator=generator)
        scores = SHARED**0.5 * common + (1 - SHARED) ** 0.5 * own + gap * y
        points = auroc_samples(scores, y, torch.ones(1, len(y)))[0]
        more = {}
        if find is emergence_event:
            test = auroc_test(scores[-1:], y, permuted)
            more["end_p"] = tail_p(float(test.observed[0]), test.maxima, least=least_labelling_p(y, groups))
        found.append(find(steps_of(count), points, auroc_samples(scores, y, weights), seed=seed, **more))
    return found


def claims_of_reports(
    reports: int, *, concepts: int = 6, gap: float = 0.0, find=emergence_event
) -> Iterator[tuple[bool, bool]]:
    """Of each report: whether any event is claimed without and with the correction."""
    generator = torch.Generator().manual_seed(0)
    for report in range(reports):
        seeds = range(concepts * report, concepts * (report + 1))
        events = [event for seed in seeds for event in concept_events(gap, generator, seed, find)]
        yield _any_known(events), _any_known(correct_events(events))


def _any_known(events: list[EmergenceEvent]) -> bool:
    return any(not math.isnan(event.step) for event in events)


def phase_claims_of_reports(
    reports: int, *, concepts: int = 6, layers: int = 4, stages: tuple[int, ...] = (12, 9)
) -> Iterator[tuple[bool, bool]]:
    """Of each report: whether any curve has a phase, tested alone, and tested together with both kernels in agreement."""
    generator = torch.Generator().manual_seed(0)
    for report in range(reports):
        alone = together = False
        for count in stages:
            common = torch.randn(concepts, 1, count, generator=generator, dtype=torch.float64)
            own = torch.randn(2, concepts, layers, count, generator=generator, dtype=torch.float64)
            curves = 0.6**0.5 * common + 0.4**0.5 * own
            sites = [
                [fit_bend(steps_of(count), curves[kernel, concept, layer], seed=report) for kernel in range(2)]
                for concept in range(concepts)
                for layer in range(layers)
            ]
            shares = [fit.explained for kernels in sites for fit in kernels if fit.explained is not None]
            p = torch.stack([(share >= share[0] - 1e-12).double().mean() for share in shares])
            verdicts = [fit.phases.verdict != "none" for kernels in sites for fit in kernels]
            alone |= bool((p[torch.tensor(verdicts)] <= 0.05).any())
            decided = familywise_phases(sites, families=len(stages))
            together |= any(phases.verdict != "none" for kernels in decided for phases in kernels)
        yield alone, together


def holm_rejections(reports: int, *, tests: int = 18, shared: float = 0.5) -> Iterator[tuple[bool, bool]]:
    """Of each family of true nulls, correlated by `shared`: whether any is rejected at 5 % without and with the correction."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(reports):
        common = torch.randn(1, generator=generator, dtype=torch.float64)
        own = torch.randn(tests, generator=generator, dtype=torch.float64)
        p = 1 - torch.special.ndtr(shared**0.5 * common + (1 - shared) ** 0.5 * own)
        yield bool((p <= 0.05).any()), bool((holm_p(p) <= 0.05).any())


def loss_claims_of_reports(reports: int, **options: float) -> Iterator[tuple[bool, bool]]:
    """`claims_of_reports` of losses."""
    return claims_of_reports(reports, find=loss_event, **options)  # type: ignore[arg-type]


def rates(claims: Iterator[tuple[bool, bool]]) -> tuple[float, float]:
    """Share of the reports with a claim, without and with the correction."""
    alone, corrected = zip(*claims, strict=True)
    return sum(alone) / len(alone), sum(corrected) / len(corrected)
