"""Study: does a planner that writes two prefix vectors before each turn make a frozen model negotiate better, in its own language?

Dialogue action tokens (arXiv:2406.11978) on a game with an exact payoff; beside the planner play the model alone, random prefixes, random
actions, the self-cloned planner, and the planner's actions exchanged between dialogues.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ontogeny.dialogues.action_tokens import ActionPlanner, prefixed_logits
from ontogeny.dialogues.self_cloning import utterance_loss
from ontogeny.jobs.study.paper_study import Lab, StudyPicture
from ontogeny.records import Record
from ontogeny.statistics.bootstrap import student_t_quantile
from ontogeny.studies.dialogue_actions._bench import Bench, Planners
from ontogeny.studies.dialogue_actions._claims import CLAIMS
from ontogeny.studies.dialogue_actions._game import Played
from ontogeny.studies.dialogue_actions._policies import fixed_prefix, planned, random_actions, random_prefixes
from ontogeny.studies.dialogue_actions._settings import (
    ANY_ACTION,
    CLONED,
    EXCHANGED,
    LOSS_MARGIN,
    NATIVE,
    NULL_EXCHANGED,
    NULL_PAYOFFS,
    NULL_SOFT,
    NULL_TWICE,
    NULL_UNCLONED,
    NULL_WORD,
    PAYOFF_MARGIN,
    RANDOM,
    STEERED,
    VALID_MARGIN,
    Settings,
)
from ontogeny.worlds import negotiation

__all__ = ["CHALLENGES", "CLAIMS", "DIFFERENCES", "PAPER", "PICTURES", "PRESETS", "SECONDS", "SETUP", "TITLE", "run"]

TITLE = "Dialogue action tokens"
PAPER = "Dialogue Action Tokens: Steering Language Models in Goal-Directed Dialogue with a Multi-Turn Planner, arXiv:2406.11978"
SETUP = f"""
A small transformer learns the texts of a game: two sides divide nine items in at most three rounds, and a rule-based partner hides its
values. The model is then frozen. A planner reads its last hidden state before each turn and writes an action of 8 numbers, which a linear
map turns into two prefix vectors after the first token. Planner and map first learn to change nothing (self-cloning); the planner then
learns offline from explored games, with TD3+BC, and plays new games. The payoff is the share of the own worth that is agreed on. The
language is judged by the model alone: margins of {LOSS_MARGIN:g} nats per token, and of {VALID_MARGIN:.0%} of the utterances.
"""
DIFFERENCES = (
    "A model of a generated language with 35 words and a partner that follows a rule, in place of Llama models in Sotopia, with "
    "language models as partner and judge; the paper's second setting, attacks on a chat model, is left out.",
    "Half of the training texts name a posture and a kind of item to concede where the prefix goes later, so that prefixes can have a "
    "meaning; the model alone is never given them.",
    "Self-cloning minimises the divergence from the model alone over its own utterances: the paper's loss without the noise of one sample "
    "a token.",
    "The map starts on the main axes of the embedding matrix. Half of the explored games have actions that are uniform on the sphere.",
    "Learning rates are larger than the paper's (1e-3 and 3e-4 against 1e-5 and 1e-6) for far smaller networks.",
)
CHALLENGES = (2,)

PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(
        steps=30, rows=16, width=32, layers=1, cloned_games=40, cloning_steps=4, explored=60, updates=20, batch=32, evaluations=2,
        games=60, mapped=20,
    ),
    "tiny": Settings(),
    "small": Settings(
        steps=4000, width=128, layers=4, action=16, cloned_games=3000, cloning_steps=1000, explored=20_000, updates=6000, batch=512,
        games=5000,
    ),
    "paper": Settings(
        steps=20_000, rows=64, width=512, layers=8, action=64, cloned_games=10_000, cloning_steps=5000, explored=40_000, updates=20_000,
        batch=1024, games=10_000,
    ),
}  # fmt: skip
SECONDS = {"smoke": 2, "tiny": 80, "small": 1500, "paper": 40_000}

PICTURES = (
    StudyPicture(
        "Payoff over the updates of TD3+BC",
        ("payoff_by_update",),
        x_title="updates (count)",
        caption="Dashed: a planner that learns from payoffs exchanged between games.",
    ),
    StudyPicture(
        "Payoff against the cross-entropy of what is said under the model alone",
        ("utterance_loss", "payoff"),
        (NATIVE, RANDOM, ANY_ACTION, CLONED, STEERED, EXCHANGED),
        points=True,
        caption="Nats per token, and share of the own worth; up and to the left is better.",
    ),
    StudyPicture(
        "Games that are agreed up to each round, and the share of the own worth that its offers ask for",
        ("agreed_by_round", "asked_share"),
        x_title="round (count)",
        caption="Offers that are not sentences are left out.",
    ),
    StudyPicture(
        "Actions of the planner, mean of each round and of the item that is worth most",
        ("action_axis_1", "action_axis_2"),
        points=True,
        caption="Main axes of all actions of a seed. Seeds share no axes: compare points of one seed, which the tooltip names.",
    ),
    StudyPicture(
        "Actions of the first round, by how the game ended",
        ("first_action_axis_1", "first_action_axis_2"),
        points=True,
        caption="The same axes, each seed its own; a point is a game.",
    ),
)


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed."""
    bench = Bench(settings, lab)
    alone = bench.play(None)
    planners = bench.clone()
    yield from _cloning_rows(bench, planners, alone)
    data, null_data = bench.explore(planners)
    curves: list[Record] = []

    def learn(control: str | None, name: str) -> ActionPlanner:
        def on_point(update: int, planner: ActionPlanner) -> None:
            played = bench.play(planned(planner, planners.prefix_map), seed=31)
            curves.append(_mean_row(lab, "payoff_by_update", played.payoff, STEERED, control, update))

        before = bench.play(planned(planners.cloned, planners.prefix_map), seed=31)
        curves.append(_mean_row(lab, "payoff_by_update", before.payoff, STEERED, control, 0))
        return bench.learn(planners.cloned, data if control is None else null_data, on_point, name)

    steered = learn(None, "TD3+BC")
    unrewarded = learn(NULL_PAYOFFS, "TD3+BC on exchanged payoffs")
    yield from curves
    yield from _arm_rows(bench, planners, alone, steered, unrewarded)


def _cloning_rows(bench: Bench, planners: Planners, alone: Played) -> Iterator[Record]:
    lab, before = bench.lab, "before self-cloning"
    count = len(alone.pooled("loss"))
    first = bench.divergence(planners.uncloned, planners.uncloned_map, alone)
    other = bench.divergence(*bench.new_planner(alone.pooled_states(), lab.seed + 500), alone)
    yield lab.row("divergence", first, before, n=count)
    yield lab.row("divergence", bench.divergence(planners.cloned, planners.prefix_map, alone), CLONED, n=count)
    yield lab.row("divergence", first, before, n=count, control=NULL_UNCLONED)
    yield lab.row("divergence", other, CLONED, n=count, control=NULL_UNCLONED)


def _arm_rows(
    bench: Bench, planners: Planners, alone: Played, steered: ActionPlanner, unrewarded: ActionPlanner
) -> Iterator[Record]:
    lab, prefix_map = bench.lab, planners.prefix_map
    with torch.no_grad():
        prefixes = prefix_map(planners.cloned(alone.pooled_states()))
    random = random_prefixes(prefixes.norm(dim=2).mean(0), bench.model.d)
    any_action = random_actions(planners.cloned, prefix_map)
    policies = {
        RANDOM: random,
        ANY_ACTION: any_action,
        CLONED: planned(planners.cloned, prefix_map),
        STEERED: planned(steered, prefix_map),
        EXCHANGED: planned(steered, prefix_map, shuffled=True),
    }
    arms = {NATIVE: alone}
    for place, (name, policy) in enumerate(policies.items()):
        lab.on_activity("playing", place, len(policies))
        arms[name] = bench.play(policy)
    best = negotiation.best_payoff(bench.world, bench.games)
    yield _mean_row(lab, "payoff_known_partner", torch.from_numpy(best), "best possible")
    for name, played in arms.items():
        yield from _language_rows(lab, played, name)
        yield _mean_row(lab, "payoff", played.payoff, name)
        agreed = 0
        for number, one in enumerate(played.rounds, 1):
            agreed += int(one.agreed.sum())
            yield lab.row("agreed_by_round", agreed / len(played.games), name, step=number, n=len(played.games))
            worth = torch.from_numpy(played.games.own)[one.rows]
            asked = ((one.taken * worth).sum(1) / negotiation.WORTH)[one.valid]
            yield lab.row(
                "asked_share", float(asked.mean()) if len(asked) else math.nan, name, step=number, n=len(asked)
            )

    def null_payoff(control: str, pairs: Mapping[str, Played]) -> Iterator[Record]:
        for name, played in pairs.items():
            yield _mean_row(lab, "payoff", played.payoff, name, control)

    yield from null_payoff(
        NULL_PAYOFFS,
        {STEERED: bench.play(planned(unrewarded, prefix_map)), NATIVE: alone, CLONED: arms[CLONED]},
    )
    again = bench.play(random, seed=41)
    yield from null_payoff(NULL_TWICE, {STEERED: again, RANDOM: arms[RANDOM]})
    shuffled = bench.play(policies[EXCHANGED], seed=41)
    yield from null_payoff(NULL_EXCHANGED, {STEERED: shuffled, EXCHANGED: arms[EXCHANGED]})
    pairs = {
        STEERED: again,
        RANDOM: arms[RANDOM],
        ANY_ACTION: bench.play(any_action, seed=41),
        CLONED: arms[ANY_ACTION],
    }
    for name, played in pairs.items():
        yield from _language_rows(lab, played, name, NULL_TWICE)
    yield from _margin_rows(bench, arms)
    yield from _action_rows(lab, arms[STEERED], bench.settings.mapped)


def _margin_rows(bench: Bench, arms: Mapping[str, Played]) -> Iterator[Record]:
    """Margins around the model alone, and the runs that must leave them."""
    lab, alone, steered = bench.lab, arms[NATIVE], arms[STEERED]
    yield from _one_word_changed(bench, steered)
    for control in (None, NULL_WORD):
        loss, valid = (float(alone.pooled(name).float().mean()) for name in ("loss", "valid"))
        count = len(alone.pooled("loss"))
        yield lab.row("utterance_loss_allowed", loss + LOSS_MARGIN, STEERED, n=count, control=control)
        yield lab.row("valid_share_needed", valid - VALID_MARGIN, STEERED, n=count, control=control)
    word, table = bench.world.vocabulary, bench.model.network.get_input_embeddings().weight
    hint = fixed_prefix(table[[word["soft"], word["books"]]].detach())
    for control, played in ((None, arms[CLONED]), (NULL_SOFT, bench.play(hint))):
        gap = abs(float(played.payoff.mean() - alone.payoff.mean()))
        yield lab.row("payoff_gap", gap, CLONED, n=len(alone.games), control=control)
        yield lab.row("payoff_gap_allowed", PAYOFF_MARGIN, CLONED, n=len(alone.games), control=control)


def _one_word_changed(bench: Bench, played: Played) -> list[Record]:
    """Language of the same utterances with one word of each replaced by a random word."""
    generator = torch.Generator().manual_seed(bench.lab.seed)
    losses, valid = [], []
    first = min(bench.world.vocabulary[word] for word in ("worth", "0"))
    for one in played.rounds:
        ids = one.said.ids.clone()
        place = ids.shape[1] - one.said.length + torch.randint(one.said.length, (len(ids),), generator=generator)
        ids[torch.arange(len(ids)), place] = torch.randint(
            first, len(bench.world.vocabulary), (len(ids),), generator=generator
        )
        words = ids[:, -one.said.length :]
        with torch.no_grad():
            losses.append(utterance_loss(prefixed_logits(bench.model, ids, None, last=one.said.length), words).cpu())
        valid.append(torch.from_numpy(negotiation.read_offers(bench.world, words.numpy())[1]))
    return [
        _mean_row(bench.lab, "utterance_loss", torch.cat(losses), STEERED, NULL_WORD),
        _mean_row(bench.lab, "valid_share", torch.cat(valid).float(), STEERED, NULL_WORD),
    ]


def _action_rows(lab: Lab, played: Played, mapped: int) -> Iterator[Record]:
    """Actions in their main axes: means by round and by the item that is worth most, and single games by how they ended."""
    actions = played.pooled("actions")
    centred = actions - actions.mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False)[2][:2]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    places = centred @ axes.T
    own = torch.from_numpy(played.games.own)
    start = 0
    for number, one in enumerate(played.rounds, 1):
        here, best = places[start : start + len(one.rows)], own[one.rows]
        start += len(one.rows)
        for kind, name in enumerate(negotiation.KINDS):
            others = best[:, [place for place in range(len(negotiation.KINDS)) if place != kind]]
            chosen = here[best[:, kind] > others.amax(1)]
            for axis in range(2):
                value = float(chosen[:, axis].mean()) if len(chosen) else math.nan
                yield lab.row(
                    f"action_axis_{axis + 1}", value, f"round {number}, {name}", n=len(chosen), reason="no such game"
                )
    ends = torch.where(~played.agreed, 0, torch.where(played.payoff > 0.5, 2, 1))
    for game in range(min(mapped, len(played.games))):
        end = ("no deal", "at most half of the worth", "more than half of the worth")[int(ends[game])]
        for axis in range(2):
            yield lab.row(f"first_action_axis_{axis + 1}", float(places[game, axis]), end, game=game)


def _language_rows(lab: Lab, played: Played, condition: str, control: str | None = None) -> Iterator[Record]:
    yield _mean_row(lab, "utterance_loss", played.pooled("loss"), condition, control)
    yield _mean_row(lab, "valid_share", played.pooled("valid").float(), condition, control)


def _mean_row(
    lab: Lab, metric: str, values: Tensor, condition: str, control: str | None = None, step: int | None = None
) -> Record:
    """Mean with Student's t interval over games or utterances."""
    mean, n = float(values.double().mean()), len(values)
    half = student_t_quantile(n - 1, 0.95) * float(values.double().std()) / math.sqrt(n) if n > 1 else math.inf
    return lab.row(metric, mean, condition, step=step, control=control, n=n, low=mean - half, high=mean + half)
