"""Reports in which nothing happens claim an event or a phase in at most 5 %, and more often without the correction."""

from tests.simulation.report_rates import (
    claims_of_reports,
    holm_rejections,
    loss_claims_of_reports,
    phase_claims_of_reports,
    rates,
)


def test_six_null_concepts_claim_an_emergence_in_at_most_5_percent_of_reports():
    _, corrected = rates(claims_of_reports(24))
    assert corrected <= 0.05


def test_concepts_that_are_always_readable_do_not_emerge():
    alone, corrected = rates(claims_of_reports(10, gap=0.95))
    assert corrected <= 0.05
    assert corrected <= alone


def test_steady_concepts_are_not_lost():
    assert rates(loss_claims_of_reports(10, gap=1.2))[1] <= 0.05


def test_random_curves_have_a_phase_in_at_most_5_percent_of_reports():
    alone, together = rates(phase_claims_of_reports(20, concepts=3))
    assert alone > 0.5
    assert together <= 0.05


def test_family_wise_rate_is_nominal():
    for shared, least in ((0.0, 0.5), (0.5, 0.25)):
        alone, corrected = rates(holm_rejections(3000, shared=shared))
        assert alone > least
        assert corrected <= 0.058
