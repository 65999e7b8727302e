"""Data-mix axis: what a vector removes against its closed form, trends with a known order, and too few siblings to tell."""

import itertools
import math
from collections.abc import Sequence
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from ontogeny.dynamics.data_mix import ends, share_curves, trend
from ontogeny.findings.share_trends import share_trend_sentences
from ontogeny.jobs.evaluate.grid_search import GridCell
from ontogeny.jobs.evaluate.nulls import EffectWithNulls
from ontogeny.jobs.evaluate.removal import removal_rows
from ontogeny.jobs.evaluate.share_trends import trend_rows
from ontogeny.records import RECORD_COLUMNS
from ontogeny.statistics.rank_correlation import rank_correlation
from ontogeny.steering.controls import EffectWithControls

MARGINS = torch.tensor([2.0, -1.0, 0.5, -3.0, 1.0, -0.2])
GROUPS = torch.arange(6)


def removals(shift: float, *, sign: int = 1, margins: torch.Tensor = MARGINS) -> dict[tuple[str, str | None], float]:
    shifts = torch.full_like(margins, shift)
    random = torch.tensor([float((margins + s).double().sigmoid().mean()) for s in (-0.1, 0.1)], dtype=torch.float64)
    effect = EffectWithNulls(1.0, shifts, EffectWithControls(shift, torch.tensor([-0.1, 0.1])), None, random)
    cell = GridCell("resid.1", 1.0, shifts, torch.tensor([0.25, 0.35]))
    method = SimpleNamespace(
        method="caa" if sign > 0 else "ablate",
        choice_axis="site",
        desired_sign=sign,
        grid=SimpleNamespace(chosen=cell, cells=(cell,)),
        margins=(margins, margins + shifts),
        dose_response=(effect,),
        nulls_at_equal_kl=None,
        at_equal_kl=None,
    )
    rows = list(removal_rows(method, GROUPS))  # type: ignore[arg-type]
    assert {row.coords["cost"] for row in rows} == {"0", "0.3"}
    return {(row.metric, row.control): row.value for row in rows}


@pytest.mark.parametrize("sign", [1, -1])
def test_part_removed_is_that_of_the_probability_of_unwanted_answers(sign: int) -> None:
    rows = removals(sign * 1.5, sign=sign)
    before, after = (float((-sign * (MARGINS + sign * s)).double().sigmoid().mean()) for s in (0.0, 1.5))
    assert rows["unwanted_share", "unsteered"] == pytest.approx(before)
    assert rows["unwanted_share", None] == pytest.approx(after)
    assert rows["removed_share", None] == pytest.approx(1 - after / before)
    assert 0 < rows["removed_share", None] < 1
    assert abs(rows["removed_share", "random_direction"]) < 0.01
    assert removals(0.0, sign=sign)["removed_share", None] == pytest.approx(0)
    assert removals(-sign * 1.5, sign=sign)["removed_share", None] < 0
    # Nothing to remove: the part is absent, not 0 or 1.
    assert math.isnan(removals(sign * 1.5, sign=sign, margins=torch.full((6,), sign * 9.0))["removed_share", None])


def siblings(values: list[float], *, nulls: Sequence[float] = (), shares: tuple[float, ...] = ()) -> pd.DataFrame:
    """Rows of a vector whose removed part is `values` over ascending shares, with an earlier checkpoint that must not count."""
    rows = []
    for place, value in enumerate(values):
        share = shares[place] if shares else 0.1 * place
        null = nulls[place] if nulls else 0.0
        for step, own in ((10, 0.5 - value), (20, value)):
            row = {
                "unit": "evaluation-1",
                "stage": f"s{place}",
                "step": step,
                "concept": "c",
                "method": "caa",
                "split": "test",
            }
            coords = {"data_share": f"{share:g}", "alpha": "1", "kl": "0.1", "cost": "0.1"}
            row |= {"metric": "removed_share", "coords": coords, "n": 20}
            rows.append(row | {"value": own, "low": own - 0.1, "high": own + 0.1})
            rows.append(row | {"control": "random_direction", "value": null, "low": null - 0.2, "high": null + 0.2})
    table = pd.DataFrame(rows).reindex(columns=[*RECORD_COLUMNS])
    return table.sample(frac=1, random_state=0)


def test_trend_is_spearmans_with_the_p_of_all_orders() -> None:
    values = [0.3, 0.1, 0.4, 0.35, 0.9]
    [curve] = share_curves(siblings(values))
    rho, p = trend(curve)
    by_hand = [abs(rank_correlation(order, values)) for order in itertools.permutations(range(5))]
    assert rho == pytest.approx(rank_correlation(range(5), values))
    assert p == pytest.approx(sum(value >= abs(rho) - 1e-9 for value in by_hand) / 120)
    low, high = ends(curve) or pytest.fail("no ends")
    assert (low.share, low.value, high.share, high.value) == (0.0, 0.3, 0.4, 0.9)


def test_rising_part_is_a_trend_and_that_of_few_siblings_is_undecided() -> None:
    for count, verdict in ((5, "It rises with the share."), (4, "Undecided: 4 siblings give no p below 0.083")):
        rows = [vars(row) for row in trend_rows(siblings([0.1 * i for i in range(count)]))]
        [sentence] = share_trend_sentences(pd.DataFrame(rows))
        assert verdict in sentence
        assert "the largest part at" in sentence
        assert "of random directions +0.00" in sentence
    rows = [vars(row) for row in trend_rows(siblings([0.2, 0.1, 0.3, 0.15, 0.2]))]
    assert "No trend is shown" in share_trend_sentences(pd.DataFrame(rows))[0]
    # Random directions that rise as much: the vector shows nothing.
    both = [0.1, 0.2, 0.3, 0.4, 0.5]
    told = pd.DataFrame([vars(row) for row in trend_rows(siblings([v + 0.2 for v in both], nulls=both))])
    assert "No trend is shown beyond that of random directions." in share_trend_sentences(told)[0]
    [difference] = [row for row in rows if row["metric"] == "share_difference"]
    assert difference["value"] == pytest.approx(0.0)
    assert difference["high"] == pytest.approx(0.1 * 2**0.5)
    [absent] = [
        vars(row) for row in trend_rows(siblings([0.1, 0.2])) if row.metric == "share_trend" and not row.control
    ]
    assert absent["n"] == 0
    assert "needs three" in absent["note"]
    assert share_trend_sentences(pd.DataFrame([absent])) == [f"c: no trend of removed of caa: {absent['note']}."]
    assert [*trend_rows(siblings([0.1, 0.2]).assign(coords=[{}] * 8))] == []


def test_seeds_of_one_share_are_averaged_and_count_as_siblings() -> None:
    [curve] = share_curves(siblings([0.1, 0.3, 0.5, 0.9], shares=(0.0, 0.0, 0.2, 0.2)))
    low, high = ends(curve) or pytest.fail("no ends")
    assert (low.value, high.value) == (pytest.approx(0.2), pytest.approx(0.7))
    assert low.high - low.low == pytest.approx(0.2 / 2**0.5)
    assert trend(curve)[1] == pytest.approx(1 / 3)
