"""Claims on rare features, and pictures."""

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Quantity
from ontogeny.claims.shapes import Relation, Separation
from ontogeny.jobs.study.paper_study import StudyPicture

EQUAL_FREQUENCY, UNTRAINED = "equal_frequency", "untrained"
TOYS = CHAINS, LINEAR, RELU = ("chains", "linear autoencoder", "autoencoder")
_PAPER, _SUPERPOSITION = "arXiv:2505.04741, section 3", "arXiv:2209.10652"
_REPORTED = "coherence .95 for the rarest, .8 for equal frequency; a replication found no effect with four estimators"
OF_MEANS = "_of_means"
"""Ending of metrics of directions between class means; without it they are normals of logistic probes."""
_RATIOS = (0.01, 0.03, 0.1, 0.3, 1.0)


def condition_of(toy: str, ratio: float) -> str:
    """Condition of a toy at a relative frequency."""
    return f"{toy}, {ratio:g}"


def _conditions(toy: str) -> tuple[str, ...]:
    return tuple(condition_of(toy, ratio) for ratio in _RATIOS)


def _over_ratios(toy: str, suffix: str = "") -> Relation:
    rare = Quantity(f"rare_coherence{suffix}")
    return Relation(Quantity("relative_frequency"), rare, _conditions(toy), -1)


def _rare_above_frequent(toy: str) -> Separation:
    rare, frequent = (Quantity(name, condition_of(toy, 0.01)) for name in ("rare_coherence", "frequent_coherence"))
    return Separation(rare, frequent, unit="coherence of rare minus that of frequent features")


CLAIMS = (
    Claim(
        "rare_chain_is_entangled",
        "In a decoder of width four, features of a chain are the more coherent with others the rarer the chain is.",
        _PAPER,
        _REPORTED,
        _over_ratios(CHAINS),
        EQUAL_FREQUENCY,
    ),
    Claim(
        "rare_chain_above_frequent_ones",
        "At a hundredth of the frequency they are more coherent than those of the other chains in the same model.",
        _PAPER,
        _REPORTED,
        _rare_above_frequent(CHAINS),
        EQUAL_FREQUENCY,
    ),
    Claim(
        "rare_chain_is_entangled_by_mass_mean",
        "The same holds of directions between class means.",
        f"control of {_PAPER}",
        _REPORTED,
        _over_ratios(CHAINS, OF_MEANS),
        EQUAL_FREQUENCY,
    ),
    Claim(
        "frequent_chains_below_random",
        "Features of chains of equal frequency are less coherent than random directions.",
        _PAPER,
        "a plateau of .8; random directions in four dimensions .84",
        Separation(
            Quantity("random_coherence", condition_of(CHAINS, 1.0)),
            Quantity("frequent_coherence", condition_of(CHAINS, 1.0)),
            unit="coherence of random directions minus that of features",
        ),
        UNTRAINED,
    ),
    Claim(
        "rare_is_entangled_in_linear_autoencoder",
        "In a linear autoencoder with more features than dimensions, features are the more coherent the rarer they are.",
        f"{_SUPERPOSITION}; variant of {_PAPER}",
        "its best weights span the most frequent features, so that rare ones have no direction of their own",
        _over_ratios(LINEAR),
        EQUAL_FREQUENCY,
    ),
    Claim(
        "rare_above_frequent_in_linear_autoencoder",
        "There rare features are more coherent than frequent ones in the same model.",
        f"{_SUPERPOSITION}; variant of {_PAPER}",
        "as above",
        _rare_above_frequent(LINEAR),
        EQUAL_FREQUENCY,
    ),
    Claim(
        "rare_is_short_in_linear_autoencoder",
        "And the linear autoencoder gives rare features shorter directions.",
        _SUPERPOSITION,
        "length 0 at the optimum",
        Relation(Quantity("relative_frequency"), Quantity("rare_length"), _conditions(LINEAR)),
        EQUAL_FREQUENCY,
    ),
    Claim(
        "rare_is_entangled_in_autoencoder",
        "In an autoencoder with ReLU and biases, features are the more coherent the rarer they are.",
        f"{_SUPERPOSITION}; variant of {_PAPER}",
        _REPORTED,
        _over_ratios(RELU),
        EQUAL_FREQUENCY,
    ),
    Claim(
        "rare_above_frequent_in_autoencoder",
        "There rare features are more coherent than frequent ones in the same model.",
        f"{_SUPERPOSITION}; variant of {_PAPER}",
        _REPORTED,
        _rare_above_frequent(RELU),
        EQUAL_FREQUENCY,
    ),
)


def _picture(toy: str, caption: str) -> StudyPicture:
    return StudyPicture(
        f"Coherence of rare features: {toy}",
        ("relative_frequency", "rare_coherence"),
        _conditions(toy),
        points=True,
        log_x=True,
        caption=caption,
    )


PICTURES = (
    _picture(
        CHAINS,
        "Mean over the features of the rare chain of the largest |cosine| with another feature, by logistic probes. Null "
        "run: all chains are equally frequent. Four dimensions hold twelve directions with no less than .43.",
    ),
    StudyPicture(
        "Coherence of frequent features: chains",
        ("relative_frequency", "frequent_coherence"),
        _conditions(CHAINS),
        points=True,
        log_x=True,
    ),
    _picture(LINEAR, "Null run: all features are equally frequent."),
    StudyPicture(
        "Length of rare features relative to frequent ones: linear autoencoder",
        ("relative_frequency", "rare_length"),
        _conditions(LINEAR),
        points=True,
        log_x=True,
    ),
    _picture(RELU, "Null run: all features are equally frequent."),
    StudyPicture(
        "Prediction of the rare chain by decoders",
        ("relative_frequency", "rare_loss"),
        _conditions(CHAINS),
        points=True,
        log_x=True,
        caption="Cross-entropy after the fourth token of its sequences (nats per token). A chain that is not learned has no features to "
        "entangle.",
    ),
)
