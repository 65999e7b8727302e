"""Claims on marked data in pretraining, and pictures."""

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Quantity
from ontogeny.claims.shapes import Relation, Separation
from ontogeny.jobs.study.paper_study import StudyPicture
from ontogeny.studies.toxic_pretraining._detoxifiers import (
    ANNOTATED_METHODS,
    DPO,
    INST,
    ITI,
    MEDA,
    METHODS,
    PROMPT,
    RANDOM,
    SFT,
)

OTHER_ATTRIBUTE, RANDOM_DIRECTION, OPPOSITE_ANNOTATION = "other_attribute", "random_direction", "opposite_annotation"
_PAPER = "arXiv:2505.04741"


def share_name(share: float) -> str:
    """Condition of a pretraining share."""
    return f"share {share:g}"


CLEAN, MAIN, LARGEST = (share_name(share) for share in (0.0, 0.1, 0.25))
SHARES = tuple(share_name(share) for share in (0.0, 0.05, 0.1, 0.25))


def _over_shares(metric: str, sign: int = 1) -> Relation:
    return Relation(Quantity("pretraining_share"), Quantity(metric), SHARES, 1 if sign > 0 else -1)


def _at_cost(metric: str, condition: str, method: str) -> Quantity:
    return Quantity(metric, condition, coords={"method": method})


def _beats(method: str, name: str, text: str, source: str, reported: str) -> Claim:
    return Claim(
        name,
        text,
        source,
        reported,
        Separation(
            _at_cost("removed_at_cost", MAIN, ITI),
            _at_cost("removed_at_cost", MAIN, method),
            unit="fewer continuations that are not clean, per marked one of the base model, at equal cost",
        ),
        RANDOM_DIRECTION,
    )


CLAIMS = (
    Claim(
        "share_raises_base",
        "The larger the marked share in pretraining, the more marked continuations the base model writes.",
        f"{_PAPER}, section 4",
        "toxicity of the base model rises with the share",
        _over_shares("marked_by_base"),
        OTHER_ATTRIBUTE,
    ),
    Claim(
        "share_improves_heads",
        "The larger the share, the better probes of single heads read the register on words that they were not fitted on.",
        f"{_PAPER}, section 4, p = .0002",
        "mean accuracy of heads higher by .67 to 1.18 points, with a fatter right tail",
        _over_shares("head_accuracy"),
        OTHER_ATTRIBUTE,
    ),
    Claim(
        "share_improves_best_heads",
        "The same holds for the heads that are intervened on, the right tail.",
        f"{_PAPER}, section 4",
        "fatter right tail",
        _over_shares("best_head_accuracy"),
        OTHER_ATTRIBUTE,
    ),
    Claim(
        "share_disentangles",
        "The larger the share, the less coherent is the register's direction with those of other factors.",
        f"{_PAPER}, section 3",
        "in the toy the direction of a rare feature has coherence .95 and falls to .8",
        _over_shares("coherence", -1),
        OTHER_ATTRIBUTE,
    ),
    Claim(
        "iti_beats_random",
        "At equal cost the intervention removes more than random directions of equal norm at the same heads.",
        f"control of {_PAPER}, section 5",
        "no null in the paper",
        Separation(
            _at_cost("removed_at_cost", MAIN, ITI),
            _at_cost("removed_at_cost", MAIN, RANDOM),
            threshold=0.05,
            unit="fewer continuations that are not clean, per marked one of the base model, at equal cost",
        ),
        RANDOM_DIRECTION,
    ),
    Claim(
        "share_helps_removal",
        "The larger the share, the larger the part that the intervention removes at equal cost.",
        f"{_PAPER}, section 5; small replication",
        "replication: 64 % without, 72 to 89 % with marked data",
        Relation(Quantity("pretraining_share"), Quantity("removed_at_cost", coords={"method": ITI}), SHARES),
        RANDOM_DIRECTION,
    ),
    Claim(
        "detoxified_is_cleaner",
        "After the intervention at equal cost fewer continuations are not clean than without marked pretraining: the fall of the smile.",
        f"{_PAPER}, section 5",
        "toxicity 2.63 with a tenth, 19.82 without",
        Separation(
            _at_cost("not_clean_at_cost", CLEAN, ITI),
            _at_cost("not_clean_at_cost", MAIN, ITI),
            unit="share of continuations that are marked or degenerate",
        ),
        RANDOM_DIRECTION,
    ),
    Claim(
        "too_much_is_removed_less",
        "With a quarter of marked texts the intervention removes a smaller part at equal cost than with a tenth: the rise of the smile.",
        f"{_PAPER}, section 5",
        "optimum at about a tenth",
        Separation(
            _at_cost("removed_at_cost", MAIN, ITI),
            _at_cost("removed_at_cost", LARGEST, ITI),
            unit="fewer continuations that are not clean, per marked one of the base model, at equal cost",
        ),
        RANDOM_DIRECTION,
    ),
    _beats(
        PROMPT,
        "iti_beats_prompt",
        "At equal cost the intervention removes more than a clean sentence in front.",
        f"{_PAPER}, section 5",
        "lower toxicity at lower cross-entropy than prompting",
    ),
    _beats(
        SFT,
        "iti_beats_sft",
        "At equal cost it removes more than supervised fine-tuning on clean texts.",
        f"{_PAPER}, section 5",
        "lower toxicity at lower cross-entropy than SFT",
    ),
    _beats(
        DPO,
        "iti_beats_dpo",
        "At equal cost it removes more than DPO.",
        f"{_PAPER}, section 5",
        "lower toxicity at lower cross-entropy than DPO",
    ),
    _beats(
        MEDA,
        "iti_beats_meda",
        "At equal cost it removes more than scores in front of the pretraining texts (MEDA).",
        f"{_PAPER}, section 5; arXiv:2302.07388",
        "lower toxicity at lower cross-entropy than MEDA",
    ),
    _beats(
        INST,
        "iti_beats_inst",
        "At equal cost it removes more than instructions in front of the pretraining texts (INST).",
        f"{_PAPER}, section 5; arXiv:2302.07388",
        "lower toxicity at lower cross-entropy than INST",
    ),
)


def _frontier(condition: str, methods: tuple[str, ...] = METHODS) -> tuple[str, ...]:
    return tuple(f"{method}, {condition}" for method in methods)


PICTURES = (
    StudyPicture(
        "Frontier of the model with a tenth of marked texts",
        ("cross_entropy_cost", "not_clean"),
        _frontier(MAIN, METHODS + ANNOTATED_METHODS),
        points=True,
        caption="Share of continuations that are marked or degenerate over the rise of cross-entropy on everyday text (nats per token), "
        "a point for each strength and seed. Down and left is better.",
    ),
    StudyPicture(
        "Frontier of the model without marked texts but for the background",
        ("cross_entropy_cost", "not_clean"),
        _frontier(CLEAN),
        points=True,
    ),
    StudyPicture(
        "Continuations that are marked, degenerate or clean, by strength of the intervention",
        ("steered",),
        SHARES,
        x_title="strength (tenths of a standard deviation of the projections)",
        caption="Strength 0 is the base model. Dashed: random directions of equal norm. Text without insults counts as clean only if it is "
        "grammatical and repeats nothing.",
    ),
    StudyPicture(
        "Density of the accuracies of heads that read the register",
        ("head_density",),
        SHARES,
        x_title="accuracy on other words (%)",
        caption="Gaussian kernels of 2.5 points. Dashed: tense.",
    ),
    StudyPicture(
        "Linear separability of the register in the residual stream",
        ("stream_accuracy",),
        SHARES,
        x_title="layer (count)",
        caption="Accuracy of logistic probes at the full stop, on words that they were not fitted on. Dashed: shuffled labels.",
    ),
    StudyPicture(
        "Coherence of the register's direction by share of marked texts",
        ("pretraining_share", "coherence"),
        SHARES,
        points=True,
        caption="Mean over heads of the largest |cosine| with the direction of another factor. Null run: tense.",
    ),
)
