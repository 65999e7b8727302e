"""Low rank: ranks, tokens, masks, and the copy test."""

import numpy as np
import pytest

from ontogeny.errors import BadInput
from ontogeny.worlds import low_rank

WORLD = low_rank.make()
FINE = low_rank.Config(decimals=4, largest=100.0)


@pytest.mark.parametrize("factors", ["uniform", "normal", "laplace", "levels", "signs", "full"])
def test_matrices_have_the_rank_up_to_rounding(factors):
    world = low_rank.make(low_rank.Config(rows=6, columns=8, rank=2, factors=factors, decimals=4, largest=100.0))
    u, v, matrix = low_rank.matrices(world, np.random.default_rng(0), 200)
    third = np.linalg.svd(matrix, compute_uv=False)[:, 2]
    assert (third.max() < 1e-3) == (factors != "full")
    if factors == "full":
        assert np.isnan(u).all()
        assert third.min() > 0.1
    else:
        np.testing.assert_allclose(u @ v.swapaxes(1, 2), matrix, atol=5.1e-5)


def test_tokens_match_the_paper_and_are_invertible():
    """2001 numbers from -10 to 10 in steps of .01, MASK before them; the paper has no separator."""
    assert WORLD.vocabulary == 2003
    np.testing.assert_array_equal(WORLD.tokens(np.array([-10.0, 0.0, 0.44, 10.0])), [1, 1001, 1045, 2001])
    batch = low_rank.sample(WORLD, np.random.default_rng(0), 100)
    observed = batch.coordinates["observed"].reshape(100, -1)
    assert ((batch.inputs == low_rank.MASK_ID) == ~observed).all()
    np.testing.assert_allclose(WORLD.values(batch.inputs)[observed], batch.targets[observed], atol=1e-12)
    assert np.isnan(WORLD.values(batch.inputs)[~observed]).all()
    assert abs((~observed).mean() - 0.3) < 0.03


@pytest.mark.parametrize(("factors", "sizes"), [("signs", [1.0]), ("levels", [0.25, 0.5, 1.0])])
def test_discrete_factors_have_few_numbers(factors, sizes):
    world = low_rank.make(low_rank.Config(factors=factors, rank=1))
    batch = low_rank.sample(world, np.random.default_rng(0), 50)
    np.testing.assert_array_equal(np.unique(np.abs(batch.targets)), sizes)


def test_shuffled_entries_are_the_same_numbers_without_the_rank():
    world = low_rank.make(low_rank.Config(factors="signs", rank=1, rows=4, columns=4))
    batch = low_rank.sample(world, np.random.default_rng(0), 200)
    shuffled = low_rank.shuffle_entries(world, batch, np.random.default_rng(1))
    np.testing.assert_array_equal(np.sort(shuffled.targets, axis=1), np.sort(batch.targets, axis=1))
    assert ((shuffled.inputs == low_rank.MASK_ID) == (batch.inputs == low_rank.MASK_ID)).all()
    assert np.linalg.matrix_rank(batch.coordinates["matrix"]).max() == 1
    assert np.linalg.matrix_rank(shuffled.coordinates["matrix"]).mean() > 2


def test_large_entries_are_clipped():
    world = low_rank.make(low_rank.Config(factors="normal", scale=5.0, largest=3.0))
    batch = low_rank.sample(world, np.random.default_rng(0), 50)
    assert np.abs(batch.targets).max() == 3.0
    assert 0 <= batch.inputs.min() <= batch.inputs.max() < world.separator


def test_striped_masks_leave_one_entry_per_line():
    sets = low_rank.evaluation(WORLD)
    for name, axis in (("rows", 2), ("columns", 1)):
        left = sets[name].coordinates["observed"].sum(axis)
        assert (np.sort(left, axis=1) == [1, 1, 7, 7, 7, 7, 7]).all()
    one, two = sets["random"], sets["mirrored"]
    assert (one.targets == -two.targets).all()
    assert ((one.inputs == low_rank.MASK_ID) == (two.inputs == low_rank.MASK_ID)).all()


def test_copy_test_detects_copying():
    """A copying model returns the filled-in number; a completing one does not."""
    batch = low_rank.evaluation(WORLD)["random"]
    for number in (0.44, -0.24):
        given = low_rank.fill_missing(WORLD, batch, number)
        copied = WORLD.values(given)
        gaps = batch.inputs == low_rank.MASK_ID
        assert (copied[gaps] == number).all()
        told = low_rank.score(WORLD, copied, batch)
        assert told["observed"].max() < 1e-20
        np.testing.assert_allclose(told["magnitude"], abs(number))
        assert told["missing"].mean() > 0.1


def test_sequences_for_causal_models():
    batch = low_rank.sample(WORLD, np.random.default_rng(0), 5)
    rows = low_rank.sequence(WORLD, batch)
    assert rows.shape == (5, 99)
    assert (rows[:, 49] == WORLD.separator).all()
    assert np.isnan(WORLD.values(rows[:, 49])).all()
    np.testing.assert_allclose(WORLD.values(rows[:, 50:]), batch.targets, atol=1e-12)


def test_absent_entries_have_no_score():
    world = low_rank.make(low_rank.Config(rows=2, columns=2, rank=1, missing=0.05))
    batch = low_rank.sample(world, np.random.default_rng(0), 50)
    told = low_rank.score(world, batch.targets + 1, batch)
    complete = (batch.inputs != low_rank.MASK_ID).all(1)
    assert 0 < complete.sum() < 50
    assert (np.isnan(told["missing"]) == complete).all()
    np.testing.assert_allclose(told["missing"][~complete], 1.0)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (low_rank.Config(rank=8), "must be 1 to 7, got 8"),
        (low_rank.Config(rank=0), "must be 1 to 7, got 0"),
        (low_rank.Config(missing=1.0), "missing"),
        (low_rank.Config(decimals=9), "decimals"),
        (low_rank.Config(factors="cauchy"), "cauchy"),
    ],
)
def test_rejects_invalid_settings(config, words):
    with pytest.raises(BadInput, match=words):
        low_rank.make(config)
