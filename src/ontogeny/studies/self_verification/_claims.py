"""Claims on self-verification."""

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Event, Quantity
from ontogeny.claims.shapes import EventOrder, Separation

SFT, GRPO, EXACT = "after SFT", "after GRPO", "after GRPO, right answers only"
NULL_VERDICTS, NULL_UNTRAINED, NULL_HEADS, NULL_REWARDS = (
    "shuffled_verdicts",
    "untrained",
    "random_sets",
    "shuffled_rewards",
)
_PAPER = "arXiv:2504.14379"


def _flips(condition: str) -> Quantity:
    return Quantity("flipped", condition)


CLAIMS = (
    Claim(
        "readable_at_parenthesis",
        "At the parenthesis before a verdict the last layer's probe is right in more than 95 % of position-matched attempts.",
        f"{_PAPER}, section 3",
        "accuracy near 1 in later layers, without matched positions",
        Separation(Quantity("probe_accuracy", GRPO), Quantity("needed_accuracy", GRPO), unit="accuracy above .95"),
        NULL_VERDICTS,
    ),
    Claim(
        "later_layers_read_better",
        "The last layer's probe there is better than the first layer's.",
        f"{_PAPER}, section 3",
        "chance in early layers",
        Separation(
            Quantity("probe_accuracy", GRPO),
            Quantity("first_layer_accuracy", GRPO),
            threshold=0.05,
            unit="accuracy",
        ),
        NULL_VERDICTS,
    ),
    Claim(
        "training_makes_it_readable",
        "The probe is better after training than before.",
        f"control of {_PAPER}",
        "no untrained model in the paper",
        Separation(
            Quantity("probe_accuracy", GRPO), Quantity("untrained_accuracy", GRPO), threshold=0.1, unit="accuracy"
        ),
        NULL_UNTRAINED,
    ),
    Claim(
        "readable_at_result",
        "The verdict is readable at the result already, one token before the parenthesis.",
        f"{_PAPER}, alternative place of the probe",
        "probes at the last digit of the result work too",
        Separation(
            Quantity("accuracy_at_result", GRPO),
            Quantity("accuracy_before_result", GRPO),
            threshold=0.1,
            unit="accuracy",
        ),
        NULL_VERDICTS,
    ),
    Claim(
        "heads_attend_to_target",
        "At the parenthesis some head has more than a tenth of its attention on the target.",
        f"{_PAPER}, section 4",
        "25 such heads, mostly in the first half and the middle",
        Separation(
            Quantity("target_mass", GRPO), Quantity("other_mass", GRPO), threshold=0.1, unit="share of attention"
        ),
        NULL_UNTRAINED,
    ),
    Claim(
        "three_heads_verify",
        "Without the three heads of the largest OV scores it denies attempts that work, more than without three random heads on average.",
        f"{_PAPER}, section 5",
        "three heads disable verification, without a null",
        Separation(
            _flips("three heads"),
            Quantity("random_flips", "three heads"),
            threshold=0.2,
            unit="share of verdicts flipped beyond random heads",
        ),
        NULL_HEADS,
    ),
    Claim(
        "attending_heads_verify",
        "Without all heads that attend to the target it denies nearly all: more than 80 %.",
        f"{_PAPER}, section 5",
        "about 100 %",
        Separation(_flips("attending heads"), _flips("nothing"), threshold=0.8, unit="share of verdicts flipped"),
        NULL_HEADS,
    ),
    Claim(
        "attending_heads_beyond_random",
        "That is more than without as many random heads on average.",
        f"control of {_PAPER}, section 5",
        "no null in the paper",
        Separation(
            _flips("attending heads"),
            Quantity("random_flips", "attending heads"),
            threshold=0.2,
            unit="share of verdicts flipped beyond random heads",
        ),
        NULL_HEADS,
    ),
    Claim(
        "vectors_beyond_random",
        "Without both sets of value vectors it denies more than without as many random neurons of their layers.",
        f"control of {_PAPER}, section 5",
        "no null in the paper",
        Separation(
            _flips("valid and invalid vectors"),
            Quantity("random_flips", "valid and invalid vectors"),
            threshold=0.2,
            unit="share of verdicts flipped beyond random neurons",
        ),
        NULL_HEADS,
    ),
    Claim(
        "valid_vectors_do_part",
        "The value vectors nearest to valid flip fewer verdicts than the heads that attend to the target.",
        f"{_PAPER}, section 5",
        "partial effect",
        Separation(_flips("attending heads"), _flips("valid vectors"), unit="share of verdicts flipped"),
        NULL_HEADS,
    ),
    Claim(
        "antipodes_matter",
        "With the vectors nearest to invalid as well, more verdicts flip than with those nearest to valid alone.",
        f"{_PAPER}, section 5",
        "both sets together are strong",
        Separation(_flips("valid and invalid vectors"), _flips("valid vectors"), unit="share of verdicts flipped"),
        NULL_HEADS,
    ),
    Claim(
        "vectors_read_as_verdicts",
        "Value vectors near the probe promote “this” over “not”; their antipodes do the reverse.",
        f"{_PAPER}, section 3",
        "tokens of success, and of failure at the antipodes",
        Separation(
            Quantity("verdict_margin", "nearest to valid"),
            Quantity("verdict_margin", "nearest to invalid"),
            unit="logit of this minus not, per unit vector",
        ),
        "random_direction",
    ),
    Claim(
        "grpo_solves_more",
        "GRPO raises the share of test puzzles that are solved.",
        f"{_PAPER}; TinyZero",
        "reinforcement learning teaches search and verification",
        Separation(Quantity("solve_rate", GRPO), Quantity("solve_rate", SFT), unit="share of puzzles"),
        NULL_REWARDS,
    ),
    Claim(
        "partial_credit_misleads",
        "After GRPO with partial credit the model accepts wrong attempts more often than after GRPO that rewards right answers alone.",
        "a trap of rewards for form: open-r1 issue 235; not in the paper",
        "not compared in the paper",
        Separation(
            Quantity("wrongly_accepted", GRPO),
            Quantity("wrongly_accepted", EXACT),
            unit="share of attempts wrongly accepted",
        ),
        NULL_REWARDS,
    ),
    Claim(
        "heads_form_in_fine_tuning",
        "The heads that attend to the target get their effect in supervised fine-tuning, not under GRPO.",
        "over checkpoints; not in the paper",
        "one checkpoint in the paper",
        Separation(
            Quantity("flips_gained", "in SFT"), Quantity("flips_gained", "under GRPO"), unit="share of verdicts flipped"
        ),
        NULL_HEADS,
    ),
    Claim(
        "readable_before_said",
        "In fine-tuning the verdict is readable at the parenthesis before it is said.",
        "over checkpoints; not in the paper",
        "one checkpoint in the paper",
        EventOrder(
            Event(Quantity("reached", "probe at the parenthesis"), 0.75),
            Event(Quantity("reached", "verdicts right"), 0.75),
        ),
        "same_quantity",
    ),
)
