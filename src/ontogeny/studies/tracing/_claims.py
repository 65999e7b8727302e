"""Claims of the tracing paper, in its protocol and in ours."""

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Quantity
from ontogeny.claims.shapes import Separation

FAMILIES = {"GPT-NeoX": "gpt_neox", "Llama": "llama", "GPT-2": "gpt2"}
TRAINED, UNTRAINED, PEAK, LARGER_END = "trained", "untrained", "peak", "first or last"
MIDDLE, AVERAGE, OWN = "mid-pretraining", "average over checkpoints", "own"


_PROTOCOLS = {"paper": "paper's protocol", "ours": "cross-fitted over groups"}


def _readable(metric: str, family: str, protocol: str, reported: str) -> Claim:
    return Claim(
        f"readable_{protocol}_{FAMILIES[family]}",
        f"Concepts become linearly readable in pretraining: {family}, {_PROTOCOLS[protocol]}.",
        "arXiv:2402.19465, section 3 and Fig. 2" if family == "GPT-NeoX" else "arXiv:2402.19465, next check 2",
        reported,
        Separation(
            Quantity(metric, f"{family}, {TRAINED}"),
            Quantity(metric, f"{family}, {UNTRAINED}"),
            threshold=0.1,
            unit="accuracy" if metric == "accuracy" else "AUROC",
        ),
        "shuffled_labels",
    )


def _phases(metric: str, family: str, how: str) -> Claim:
    return Claim(
        f"compression_{metric}_{FAMILIES[family]}",
        f"The dependence of activations on the input first rises, then falls: {family}, {how}.",
        "arXiv:2402.19465, section 5 and Fig. 5" if family == "GPT-NeoX" else "arXiv:2402.19465, next check 2",
        "peak at about 500 steps, then a fall by a third",
        Separation(
            Quantity(metric, f"{family}, {PEAK}"),
            Quantity(metric, f"{family}, {LARGER_END}"),
            ratio=True,
            threshold=0.1,
            unit="log2 of the peak over the larger end",
        ),
        "one_checkpoint",
    )


def _fitting(metric: str, how: str, unit: str, threshold: float, *, ratio: bool = False) -> Claim:
    return Claim(
        f"fitting_{metric}",
        f"The dependence of activations on the label rises in pretraining: {how}.",
        "arXiv:2402.19465, section 5",
        "I(T,Y) rises throughout",
        Separation(
            Quantity(metric, f"GPT-NeoX, {TRAINED}"),
            Quantity(metric, f"GPT-NeoX, {UNTRAINED}"),
            ratio=ratio,
            threshold=threshold,
            unit=unit,
        ),
        "shuffled_labels",
    )


def _effect(larger: str, smaller: str, threshold: float = 0.0) -> Separation:
    return Separation(Quantity("effect", larger), Quantity("effect", smaller), threshold=threshold, unit="nats")


CLAIMS = (
    *(_readable("accuracy", family, "paper", "from about .54 to .8") for family in FAMILIES),
    *(_readable("auroc", family, "ours", "from about .54 to .8 (accuracy)") for family in FAMILIES),
    Claim(
        "early_rise",
        "More than half of the gain in accuracy comes in the first quarter of pretraining.",
        "arXiv:2402.19465, section 3 and Fig. 2",
        "within the first 10 to 20 of 360 checkpoints, then a plateau",
        Separation(Quantity("gain", "first quarter"), Quantity("gain", "rest"), unit="accuracy"),
        "shuffled_labels",
    ),
    Claim(
        "middle_layer",
        "A middle layer is read better than the last one.",
        "arXiv:2402.19465, Fig. 2",
        "layer 20 of 32 above layers 30 and 10",
        Separation(Quantity("layer_auroc", "middle"), Quantity("layer_auroc", "last"), unit="AUROC, mean over pretraining"),
        "untrained",
    ),
    Claim(
        "pretraining_vector_steers",
        "A vector from the middle of pretraining moves the answers of the fine-tuned model more than random vectors.",
        "arXiv:2402.19465, section 4",
        "vectors of checkpoint 179 of 360 raise four of five dimensions",
        _effect(MIDDLE, "random"),
        "shuffled_labels",
    ),
    Claim(
        "as_good_as_own",
        "It moves them by at least four fifths of what the model's own vector does.",
        "arXiv:2402.19465, section 4",
        "vectors from pretraining match or exceed the model's own",
        _effect(MIDDLE, f"four fifths of {OWN}"),
        "shuffled_labels",
    ),
    Claim(
        "averaging_helps",
        "The average of the vectors of several checkpoints moves them more than the vector from the middle.",
        "arXiv:2402.19465, next check 1",
        "not measured there",
        _effect(AVERAGE, MIDDLE),
        "shuffled_labels",
    ),
    Claim(
        "steering_is_cheap",
        "The vector from the middle raises the loss on other texts by less than .1 nats per token.",
        "arXiv:2402.19465, section 4",
        "general capabilities hardly change",
        Separation(Quantity("cost", "allowed"), Quantity("cost", MIDDLE), unit="nats per token"),
        "ten_times_as_long",
    ),
    *(_phases("paper_tx", family, "HSIC, paper's protocol") for family in FAMILIES),
    _phases("median_tx", "GPT-NeoX", "HSIC, median kernel"),
    _phases("mine_tx", "GPT-NeoX", "MINE"),
    _fitting("paper_ty", "HSIC, paper's protocol", "normalised HSIC", 0.05),
    _fitting("median_ty", "HSIC, median kernel", "log2 of HSIC", 0.1, ratio=True),
    _fitting("mine_ty", "MINE", "nats", 0.05),
    Claim(
        "estimators_agree",
        "MINE and HSIC order the checkpoints alike by their dependence on the label.",
        "arXiv:2402.19465, next check 3",
        "not measured there",
        Separation(Quantity("agreement", "MINE and HSIC"), Quantity("agreement", "chance"), unit="rank correlation"),
        "permuted_checkpoints",
    ),
)  # fmt: skip
