"""Negotiation: the rule of the partner, exact payoffs, and texts that the rule has written."""

import numpy as np
import pytest

from ontogeny.errors import BadInput
from ontogeny.worlds import negotiation

WORLD = negotiation.make()


def game(own: tuple[int, int, int], partner: tuple[int, int, int], reservation: float) -> negotiation.Games:
    return negotiation.Games(np.array([own]), np.array([partner]), np.array([reservation]))


def said(words: str) -> np.ndarray:
    return np.array([[WORLD.vocabulary[word] for word in words.split()]])


@pytest.mark.parametrize(
    ("words", "number", "payoff", "agreed", "over"),
    [
        # The partner's share is worth 12 + 1 = 13 of 18.
        ("well i take 3 books 0 hats 2 balls .", 1, 14 / 18, True, True),
        # It is worth 7 of 18: enough in the second and the third round, at .35 and .25 of the worth.
        ("well i take 2 books 2 hats 1 balls .", 1, 0, False, False),
        ("so i take 2 books 2 hats 1 balls ?", 2, 11 / 18, True, True),
        ("well i take 3 books 3 hats 3 balls .", 1, 0, False, True),
        ("well i take 3 books 3 balls 0 hats .", 1, 0, False, False),
        ("well i take 4 books 0 hats 0 balls .", 1, 0, False, False),
        ("well i take 4 books 0 hats 0 balls .", 3, 0, False, True),
    ],
)
def test_partner_follows_its_rule(words: str, number: int, payoff: float, agreed: bool, over: bool) -> None:
    answer = negotiation.reply(WORLD, game((4, 1, 1), (1, 4, 1), 0.45), said(words), number)
    assert answer.payoff[0] == pytest.approx(payoff)
    assert (bool(answer.agreed[0]), bool(answer.over[0])) == (agreed, over)


def test_demands_are_accepted_and_never_exceed_what_there_is() -> None:
    games = negotiation.start_games(WORLD, np.random.default_rng(0), 300)
    nothing = np.repeat(said("well i take well books well hats well balls ."), 300, axis=0)
    for number in (1, 2, 3):
        answer = negotiation.reply(WORLD, games, nothing, number)
        assert ((answer.demand >= 0) & (answer.demand <= negotiation.ITEMS)).all()
        offer = nothing.copy()
        offer[:, 3:9:2] = WORLD.vocabulary["0"] + negotiation.ITEMS - answer.demand
        accepted = negotiation.reply(WORLD, games, offer, number)
        assert accepted.agreed.all()
        assert (accepted.payoff <= negotiation.best_payoff(WORLD, games) + 1e-9).all()


def test_texts_are_games_under_the_rule() -> None:
    ids, lengths = negotiation.texts(WORLD, np.random.default_rng(0), 400)
    words = negotiation.tokenizer(WORLD)
    for row, length in zip(ids, lengths, strict=True):
        text = words.decode(row[:length])
        assert text.endswith("</s>")
        assert text.count(" me :") == text.count(" you :") <= WORLD.config.rounds
        assert 0 <= negotiation.judge(WORLD, text) <= 1
        assert (row[length:] == WORLD.vocabulary["<pad>"]).all()
    hinted = np.isin(ids[:, 1], [WORLD.vocabulary[posture] for posture in negotiation.POSTURES])
    assert 0.4 < hinted.mean() < 0.6
    assert np.isnan(negotiation.judge(WORLD, "worth 3 books 1 hats 2 balls ; me : well well"))


def test_rejects_bad_input() -> None:
    games = negotiation.start_games(WORLD, np.random.default_rng(0), 2)
    offer = said("well i take 3 books 0 hats 2 balls .")
    for call, words in (
        (lambda: negotiation.make(negotiation.Config(rounds=0)), "`rounds` must lie between 1 and 6"),
        (lambda: negotiation.make(negotiation.Config(rounds=4)), "room for a game of 108 tokens, got 88"),
        (lambda: negotiation.make(negotiation.Config(hinted=2)), "`hinted` must lie between 0 and 1"),
        (lambda: negotiation.start_games(WORLD, np.random.default_rng(0), 0), "`count` must be at least 1"),
        (lambda: negotiation.reply(WORLD, games, offer, 1), "a row for each of 2 games, got 1"),
        (lambda: negotiation.reply(WORLD, games, offer, 4), "`round_number` must lie between 1 and 3"),
        (lambda: negotiation.read_offers(WORLD, offer[:, :5]), r"`ids` must be \[game, 10\]"),
        (lambda: negotiation.judge(WORLD, "hello"), "`text` must begin with `worth 3 books"),
        (lambda: negotiation.judge(WORLD, "worth 3 books"), "`text` must begin with `worth 3 books"),
    ):
        with pytest.raises(BadInput, match=words):
            call()
