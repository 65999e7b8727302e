"""Claims on dialogue action tokens."""

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Quantity
from ontogeny.claims.shapes import Separation
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
)

_PAPER = "arXiv:2406.11978"
_HIGHER = "higher social scores than the model alone, and than GPT-4"


def _payoff_above(other: str, unit: str) -> Separation:
    return Separation(Quantity("payoff", STEERED), Quantity("payoff", other), unit=unit)


CLAIMS = (
    Claim(
        "rl_above_native",
        "With the planner of TD3+BC the model's payoff is higher than alone.",
        f"{_PAPER}, experiments in Sotopia",
        _HIGHER,
        _payoff_above(NATIVE, "share of the own worth"),
        NULL_PAYOFFS,
    ),
    Claim(
        "rl_above_cloned",
        "Reinforcement learning adds payoff to the self-cloned planner that it starts from.",
        f"{_PAPER}, experiments in Sotopia",
        "higher scores than after self-cloning alone",
        _payoff_above(CLONED, "share of the own worth"),
        NULL_PAYOFFS,
    ),
    Claim(
        "rl_above_random_prefix",
        "The payoff is higher than with random prefixes of equal length.",
        f"control of {_PAPER}",
        "no random prefix in the paper",
        _payoff_above(RANDOM, "share of the own worth"),
        NULL_TWICE,
    ),
    Claim(
        "planner_reads_the_dialogue",
        "The payoff is higher than with the same actions, exchanged between dialogues.",
        f"control of {_PAPER}: a planner, or one good prefix?",
        "not separated in the paper",
        _payoff_above(EXCHANGED, "share of the own worth"),
        NULL_EXCHANGED,
    ),
    Claim(
        "language_kept",
        f"What is said is at most {LOSS_MARGIN:g} nats per token less likely under the model alone than what it says itself.",
        f"{_PAPER}, abstract",
        "no language degradation, since the model is frozen",
        Separation(
            Quantity("utterance_loss_allowed", STEERED),
            Quantity("utterance_loss", STEERED),
            unit="nats per token below the margin",
        ),
        NULL_WORD,
    ),
    Claim(
        "sentences_kept",
        f"At most {VALID_MARGIN:.0%} fewer utterances are sentences of the language.",
        f"{_PAPER}, abstract",
        "no language degradation, since the model is frozen",
        Separation(
            Quantity("valid_share", STEERED),
            Quantity("valid_share_needed", STEERED),
            unit="share of utterances above the margin",
        ),
        NULL_WORD,
    ),
    Claim(
        "costs_less_than_random_prefix",
        "What is said is more likely under the model alone than with random prefixes of equal length.",
        f"control of {_PAPER}",
        "no random prefix in the paper",
        Separation(
            Quantity("utterance_loss", RANDOM), Quantity("utterance_loss", STEERED), unit="nats per token more likely"
        ),
        NULL_TWICE,
    ),
    Claim(
        "cloning_removes_the_prefix",
        "Self-cloning brings the divergence of the prefixed model from the model alone to less than an eighth.",
        f"{_PAPER}, self-cloning",
        "the model's own style is kept at the start of reinforcement learning",
        Separation(
            Quantity("divergence", "before self-cloning"),
            Quantity("divergence", CLONED),
            ratio=True,
            threshold=3.0,
            unit="halvings of the divergence",
        ),
        NULL_UNCLONED,
    ),
    Claim(
        "cloned_payoff_is_native",
        f"The payoff after self-cloning differs from the model's own by less than {PAYOFF_MARGIN:g}.",
        f"{_PAPER}, experiments in Sotopia",
        "scores near those of the model alone",
        Separation(
            Quantity("payoff_gap_allowed", CLONED),
            Quantity("payoff_gap", CLONED),
            unit="share of the own worth below the margin",
        ),
        NULL_SOFT,
    ),
    Claim(
        "actions_still_act",
        "After self-cloning the prefix still acts: random actions make the model say less likely words than the planner's own do.",
        f"control of {_PAPER}: does cloning make the prefix inert?",
        "not measured in the paper",
        Separation(
            Quantity("utterance_loss", ANY_ACTION),
            Quantity("utterance_loss", CLONED),
            unit="nats per token less likely",
        ),
        NULL_TWICE,
    ),
)
