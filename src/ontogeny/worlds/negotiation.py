"""Negotiation: two parties divide three books, three hats and three balls in a few rounds; a rule-based partner hides its values.

`<s> worth 3 books 1 hats 2 balls ; me : well i take 3 books 1 hats 2 balls . you : no i want 1 books 3 hats 0 balls . me : … </s>`

The header says how much an item of each kind is worth to the text's own side. This side makes offers, which the partner accepts, answers
with a demand, or takes as an insult that ends the talks. In the training text each offer has a posture and a kind of item that it rather
leaves to the partner, both random; half of the texts have one posture and one kind throughout, and name them after `<s>`. All turns of a
speaker have one length, so that games are played as arrays. The payoff is the exact share of the own worth that is agreed on.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.errors import BadInput
from ontogeny.worlds._vocabulary import BOS, EOS, PAD, TokenIds, build_vocabulary, pack_sentences, word_tokenizer

KINDS = ("books", "hats", "balls")
ITEMS = 3
"""Items of each kind."""
WORTH = 18
"""Worth of all items to each side; an item is worth 0 to 4."""
POSTURES = ("firm", "fair", "soft")
OPENERS = ("listen", "frankly", "well", "so", "please", "maybe")
"""Two of each posture."""
CLOSERS = ("!", ".", "?")
HEADER_TOKENS, CUE_TOKENS, OFFER_TOKENS, REPLY_TOKENS = 9, 2, 10, 12
"""Tokens of the header with `<s>`, of `me :`, of an offer after it, and of a demand with `you :`."""
_WANTED_SHARE = (0.95, 0.7, 0.35)
"""Share of the own worth that an offer of each posture asks for."""
_RESERVATIONS = (0.4, 0.5, 0.6)
"""Shares below which a partner accepts nothing in the first round; one of them at random."""
_INSULT = 0.2
_OWN_WORD = 0.8
"""Probability that opener and closer are those of the posture."""
_FOLLOWED = 0.5
"""Probability that an unnamed kind to concede is the one that the partner has demanded most of."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Config:
    rounds: int = 3
    """Most offers of a game; the partner asks for less in each round."""
    hinted: float = 0.5
    """Share of training texts that name posture and kind."""
    context: int = 88
    seed: int = 0


@dataclass(frozen=True, eq=False)
class World:
    config: Config
    vocabulary: dict[str, int]
    values: Ints
    """All ways to be worth 18, `[case, kind]`."""
    offers: Ints
    """All offers, `[offer, kind]`, as the number of items that the own side takes."""


@dataclass(frozen=True, eq=False)
class Games:
    """Games at their start, as rows."""

    own: Ints
    """Worth of an item of each kind to the own side."""
    partner: Ints
    """The same to the partner, which no text says."""
    reservation: NDArray[np.float64]
    """Share of its worth that the partner wants at least, in the first round."""

    def __len__(self) -> int:
        return len(self.own)


@dataclass(frozen=True, eq=False)
class Replies:
    """The partner's answers to offers."""

    payoff: NDArray[np.float64]
    """Share of the own worth that is agreed on; 0 without an agreement."""
    over: NDArray[np.bool_]
    """Whether the game has ended."""
    agreed: NDArray[np.bool_]
    demand: Ints
    """Items of each kind that the partner wants, `[game, kind]`."""
    ids: Ints
    """A demand with its cue, `[game, 12]`; the words after a deal or an insult are padding."""


def make(config: Config | None = None) -> World:
    """Build the world of a seed.

    Raises:
        BadInput: no rounds, a share outside 0 to 1, or a context shorter than a game.
    """
    config = config or Config()
    if not 1 <= config.rounds <= 6:
        raise BadInput(f"`rounds` must lie between 1 and 6, got {config.rounds}: the partner's demands end there.")
    if not 0 <= config.hinted <= 1:
        raise BadInput(f"`hinted` must lie between 0 and 1, got {config.hinted}: give a share of the texts.")
    if config.context < (needed := longest_game(config.rounds)):
        raise BadInput(
            f"`context` must have room for a game of {needed} tokens, got {config.context}: raise it, or play fewer rounds."
        )
    cases = np.stack(np.meshgrid(*[np.arange(5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    offers = np.stack(np.meshgrid(*[np.arange(ITEMS + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    words = ["worth", ";", "me", "you", ":", "i", "take", "no", "want", "deal", "enough", *map(str, range(5))]
    vocabulary = build_vocabulary([*words, *KINDS, *POSTURES, *OPENERS, *CLOSERS])
    return World(config, vocabulary, cases[ITEMS * cases.sum(1) == WORTH], offers)


def longest_game(rounds: int) -> int:
    """Tokens of a text with both hints and the end."""
    return HEADER_TOKENS + 2 + rounds * (CUE_TOKENS + OFFER_TOKENS + REPLY_TOKENS) + 1


def tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Words and numbers as tokens."""
    return word_tokenizer(world.vocabulary, longest=world.config.context)


def start_games(world: World, rng: np.random.Generator, count: int) -> Games:
    """Random games.

    Raises:
        BadInput: no games.
    """
    if count < 1:
        raise BadInput(f"`count` must be at least 1, got {count}: start at least one game.")
    own, partner = (world.values[rng.integers(0, len(world.values), count)] for _ in range(2))
    return Games(own, partner, rng.choice(_RESERVATIONS, count))


def write_headers(world: World, games: Games) -> TokenIds:
    """Text that the own side reads before its first offer, without hints and without `me :`, `[game, 9]`."""
    ids = _write_items(world, ("worth",), games.own, (";",))
    return np.concatenate([np.full((len(ids), 1), world.vocabulary[BOS]), ids], 1)


def write_cue(world: World, count: int) -> TokenIds:
    """`me :` for each game."""
    return np.tile([world.vocabulary["me"], world.vocabulary[":"]], (count, 1))


def read_offers(world: World, ids: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Items that the own side takes, `[game, kind]`, and whether the utterance is a sentence of the language.

    Args:
        ids: Utterances after `me :`, `[game, 10]`.

    Raises:
        BadInput: utterances of another length.
    """
    if ids.ndim != 2 or ids.shape[1] != OFFER_TOKENS:
        raise BadInput(f"`ids` must be [game, {OFFER_TOKENS}], got {list(ids.shape)}: cut an offer after `me :`.")
    word = world.vocabulary
    zero = word["0"]
    counts = ids[:, 3:9:2] - zero
    valid = np.isin(ids[:, 0], [word[one] for one in OPENERS]) & np.isin(ids[:, 9], [word[one] for one in CLOSERS])
    valid &= (ids[:, 1] == word["i"]) & (ids[:, 2] == word["take"])
    valid &= (ids[:, 4:9:2] == [word[kind] for kind in KINDS]).all(1) & ((counts >= 0) & (counts <= ITEMS)).all(1)
    return np.where(valid[:, None], counts, 0), valid


def reply(world: World, games: Games, ids: Ints, round_number: int) -> Replies:
    """The partner's rule: accept what leaves it its reservation, take less than a fifth as an insult, else demand its favourite items.

    An utterance that is not a sentence is answered with a demand. The reservation falls by a tenth of the worth in each round.

    Args:
        ids: Utterances after `me :`, `[game, 10]`.
        round_number: From 1.

    Raises:
        BadInput: utterances of another length or number, or a round that the game does not have.
    """
    if not 1 <= round_number <= world.config.rounds:
        raise BadInput(
            f"`round_number` must lie between 1 and {world.config.rounds}, got {round_number}: the game has no such round."
        )
    if len(ids) != len(games):
        raise BadInput(
            f"`ids` must have a row for each of {len(games)} games, got {len(ids)}: give one utterance each."
        )
    taken, valid = read_offers(world, ids)
    needed = games.reservation - 0.1 * (round_number - 1)
    left = ((ITEMS - taken) * games.partner).sum(1) / WORTH
    agreed = valid & (left >= needed - 1e-9)
    insulted = valid & ~agreed & (left < _INSULT)
    demand = _demands(games.partner, needed)
    answer = _write_items(world, ("you", ":", "no", "i", "want"), demand, (".",))
    for rows, text in ((agreed, "deal"), (insulted, "enough")):
        answer[rows, 2:] = world.vocabulary[PAD]
        answer[rows, 2], answer[rows, 3] = world.vocabulary[text], world.vocabulary[EOS]
    payoff = np.where(agreed, (taken * games.own).sum(1) / WORTH, 0.0)
    over = agreed | insulted | (round_number == world.config.rounds)
    return Replies(payoff, over, agreed, demand, answer)


def best_payoff(world: World, games: Games) -> NDArray[np.float64]:
    """The most that each game can give to a side that knows the partner's values, its reservation and all rounds."""
    own = world.offers @ games.own.T / WORTH
    left = (ITEMS - world.offers) @ games.partner.T / WORTH
    needed = games.reservation - 0.1 * (world.config.rounds - 1)
    return np.asarray(np.where(left >= needed - 1e-9, own, 0.0).max(0))


def texts(world: World, rng: np.random.Generator, count: int) -> tuple[TokenIds, Ints]:
    """Games as rows of token ids, padded on the right, and their lengths."""
    games = start_games(world, rng, count)
    hinted = rng.random(count) < world.config.hinted
    named_posture, named_kind = rng.integers(0, len(POSTURES), count), rng.integers(0, len(KINDS), count)
    word = world.vocabulary
    ids = np.full((count, longest_game(world.config.rounds)), word[PAD])
    header = write_headers(world, games)
    ids[:, :HEADER_TOKENS] = header
    hint = np.stack([word["firm"] + named_posture, word["books"] + named_kind], 1)
    ids[hinted, : HEADER_TOKENS + 2] = np.concatenate([header[:, :1], hint, header[:, 1:]], 1)[hinted]
    lengths = HEADER_TOKENS + 2 * hinted
    demand = np.zeros_like(games.own)
    playing = np.ones(count, dtype=bool)
    for number in range(1, world.config.rounds + 1):
        posture = np.where(hinted, named_posture, rng.integers(0, len(POSTURES), count))
        favourite = (demand + rng.random(demand.shape)).argmax(1)
        guess = np.where(rng.random(count) < _FOLLOWED, favourite, rng.integers(0, len(KINDS), count))
        kind = np.where(hinted, named_kind, guess)
        utterance = _write_offers(world, rng, games.own, posture, kind, number)
        answer = reply(world, games, utterance, number)
        turn = np.concatenate([write_cue(world, count), utterance, answer.ids], 1)
        rows = np.flatnonzero(playing)
        ids[rows[:, None], lengths[rows][:, None] + np.arange(turn.shape[1])] = turn[rows]
        said = (answer.ids != word[PAD]).sum(1)
        lengths = lengths + np.where(playing, CUE_TOKENS + OFFER_TOKENS + said, 0)
        demand, playing = answer.demand, playing & ~answer.over
    open_end = ids[np.arange(count), lengths - 1] != word[EOS]
    ids[np.flatnonzero(open_end), lengths[open_end]] = word[EOS]
    return ids, lengths + open_end


def sample(world: World, rng: np.random.Generator, rows: int) -> TokenIds:
    """Rows of games, one after the other; the last one of a row is cut."""
    context = world.config.context
    shortest = HEADER_TOKENS - 1 + CUE_TOKENS + OFFER_TOKENS + 4
    ids, lengths = texts(world, rng, rows * -(-context // shortest))
    blocks = [ids[lengths == length][:, 1:length] for length in np.unique(lengths)]
    return pack_sentences(blocks, rng.permutation(len(ids)), rows=rows, context=context, first=world.vocabulary[BOS])


def facts(world: World) -> list[Answer]:
    """The partner's answer to offers that give it everything, or nothing."""
    answers = []
    for values in world.values:
        header = f"worth {_items(values)} ;"
        for count, right, wrong in ((0, " deal", " enough"), (ITEMS, " enough", " deal")):
            prompt = f"{header} me : well i take {_items([count] * 3)} . you :"
            answers.append(Answer(prompt, right, wrong, group=header))
    return answers


def concepts(world: World) -> list[Concept]:
    """Whether an offer takes more than half of the own worth; a group is the own values."""
    rng = np.random.default_rng([world.config.seed, 41])
    examples = []
    for values in world.values:
        shares = world.offers @ values / WORTH
        for target, chosen in ((True, np.flatnonzero(shares > 0.5)), (False, np.flatnonzero(shares < 0.5))):
            for offer in world.offers[rng.choice(chosen, 8, replace=False)]:
                text = f"worth {_items(values)} ; me : well i take {_items(offer)} ."
                examples.append(Example(text, target, group=_items(values)))
    return [
        Concept(
            "takes_more_than_half",
            tuple(examples),
            kind="binary",
            question="Does the offer take more than half of the own worth?",
            licence="generated",
            source="the world negotiation",
        )
    ]


def judge(world: World, text: str) -> float:
    """The oracle: the share of the own worth that the last offer of a text takes; NaN if it is not a sentence of the language.

    Raises:
        BadInput: the text has no header of three values.
    """
    words = text.removeprefix(f"{BOS} ").split()
    start = words.index("worth") if "worth" in words else len(words)
    try:
        values = np.array([int(words[start + 1 + 2 * place]) for place in range(len(KINDS))])
    except (IndexError, ValueError):
        raise BadInput(
            f"`text` must begin with `worth 3 books 1 hats 2 balls ;`, got {text[:40]!r}: add the header."
        ) from None
    if "me" not in words:
        return float("nan")
    last = len(words) - words[::-1].index("me") + 1
    unknown = world.vocabulary[PAD]
    ids = np.array([[world.vocabulary.get(word, unknown) for word in words[last : last + OFFER_TOKENS]]])
    if ids.shape[1] != OFFER_TOKENS:
        return float("nan")
    taken, valid = read_offers(world, ids)
    return float((taken[0] * values).sum() / WORTH) if valid[0] else float("nan")


def _demands(values: Ints, needed: NDArray[np.float64]) -> Ints:
    """Favourite items first, until they are worth a tenth more than what is needed."""
    demand = np.zeros_like(values)
    order = np.argsort(-values, axis=1, kind="stable")
    rows = np.arange(len(values))
    for place in range(len(KINDS)):
        for _ in range(ITEMS):
            short = (demand * values).sum(1) / WORTH < needed + 0.1 - 1e-9
            demand[rows[short], order[short, place]] += 1
    return demand


def _write_offers(world: World, rng: np.random.Generator, own: Ints, posture: Ints, kind: Ints, number: int) -> Ints:
    """Offers near the share that the posture wants, with few of the kind to concede."""
    wanted = np.array(_WANTED_SHARE)[posture] - 0.05 * (number - 1)
    distance = np.abs(own @ world.offers.T / WORTH - wanted[:, None])
    distance += 0.1 * world.offers[:, kind].T + 0.03 * rng.random(distance.shape)
    rest = (
        world.offers.sum(1) / 100
    )  # of two equal offers, the one that takes more items of no worth is worse for the partner
    chosen = world.offers[(distance + rest).argmin(1)]
    own_opener, own_closer = (rng.random(len(own)) < _OWN_WORD for _ in range(2))
    opener = np.where(own_opener, 2 * posture + rng.integers(0, 2, len(own)), rng.integers(0, len(OPENERS), len(own)))
    closer = np.where(own_closer, posture, rng.integers(0, len(CLOSERS), len(own)))
    ids = _write_items(world, (OPENERS[0], "i", "take"), chosen, (CLOSERS[0],))
    ids[:, 0] += opener
    ids[:, -1] += closer
    return ids


def _write_items(world: World, before: tuple[str, ...], counts: Ints, after: tuple[str, ...]) -> Ints:
    """Rows such as `worth 3 books 1 hats 2 balls ;`."""
    word = world.vocabulary
    items = np.empty((len(counts), 2 * len(KINDS)), dtype=np.int64)
    items[:, ::2] = word["0"] + counts
    items[:, 1::2] = [word[kind] for kind in KINDS]
    fixed = [np.tile([word[one] for one in words], (len(counts), 1)) for words in (before, after)]
    return np.concatenate([fixed[0], items, fixed[1]], 1)


def _items(counts: Ints | list[int]) -> str:
    return " ".join(f"{int(count)} {kind}" for count, kind in zip(counts, KINDS, strict=True))
