"""Claims of the study of safety fine-tuning (section 7.5 of the paper's summary), each with a null run."""

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Event, Quantity
from ontogeny.claims.shapes import EventOrder, Relation, Separation
from ontogeny.jobs.study.paper_study import StudyPicture
from ontogeny.studies.safety_fine_tuning._patching import INTO_BASE, INTO_TUNED, RANDOM_MOVE
from ontogeny.studies.safety_fine_tuning._settings import ALPHAS, SHUFFLED

_PAPER = "arXiv:2407.10264"


def _on(metric: str, condition: str, prompts: str) -> Quantity:
    return Quantity(metric, condition, coords={"prompts": prompts})


def _at(metric: str, condition: str, layer: str) -> Quantity:
    return Quantity(metric, condition, coords={"layer": layer})


def _patched(metric: str, condition: str, layer: str) -> Quantity:
    return Quantity(metric, condition, coords={"prompts": "unsafe", "layer": layer})


def _patches() -> tuple[Claim, ...]:
    """MLP outputs exchanged, on unsafe prompts."""
    refused, reported = "patched_refusals", "MLP activations are exchanged; no number is taken from it"
    shapes = (
        (
            "tuned_mlps_refuse_in_the_base",
            "The tuned network's MLP outputs, put into the base in all blocks, make it refuse most unsafe prompts.",
            _patched(refused, INTO_BASE, "all"),
            _patched(refused, INTO_BASE, "none"),
            0.5,
        ),
        (
            "base_mlps_undo_it",
            "The base's MLP outputs, put into the tuned network in all blocks, take most refusals away.",
            _patched(refused, INTO_TUNED, "none"),
            _patched(refused, INTO_TUNED, "all"),
            0.5,
        ),
        (
            "base_mlps_bring_the_result_back",
            "And bring the true result back for most unsafe prompts.",
            _patched("patched_right", INTO_TUNED, "all"),
            _patched("patched_right", INTO_TUNED, "none"),
            0.5,
        ),
        (
            "last_mlp_refuses_more",
            "Of the tuned network's MLPs, that of the last block makes the base refuse more than that of the first.",
            _patched(refused, INTO_BASE, "last"),
            _patched(refused, INTO_BASE, "1"),
            0.0,
        ),
    )
    return tuple(
        Claim(
            name,
            text,
            f"{_PAPER}, section 4",
            reported,
            Separation(larger, smaller, threshold=least, unit="share of prompts"),
            RANDOM_MOVE,
        )
        for name, text, larger, smaller, least in shapes
    )


def _jailbreaks() -> tuple[Claim, ...]:
    claims = []
    for attack, text in (
        ("twin", "Operators that fine-tuning did not name are carried out (mismatched generalisation, tokens)."),
        (
            "held_out",
            "Unsafe operands of a branch that fine-tuning did not show are carried out (mismatched generalisation, text).",
        ),
        ("mixed", "An unsafe operator beside a safe one is carried out (competing objectives)."),
    ):
        claims.append(
            Claim(
                f"jailbreak_{attack}",
                text,
                f"{_PAPER}, section 5 and Table 1",
                "jailbreaks bring the true result back",
                Separation(
                    _on("right", "SSFT", attack), _on("right", "SSFT", "unsafe"), threshold=0.2, unit="share of prompts"
                ),
                "other unsafe prompts",
            )
        )
        claims.append(
            Claim(
                f"{attack}_looks_safe",
                f"Their activations lie nearer to the safe cluster than unsafe ones ({attack.replace('_', ' ')}).",
                f"{_PAPER}, section 5 and Fig. 7",
                "clusters of jailbreaks lie towards safe prompts",
                Separation(
                    _on("cluster_score", "SSFT", "unsafe"),
                    _on("cluster_score", "SSFT", attack),
                    threshold=0.2,
                    unit="cluster score",
                ),
                "other unsafe prompts",
            )
        )
    return tuple(claims)


CLAIMS = (
    Claim(
        "unsafe_is_refused",
        "After supervised fine-tuning unsafe prompts are refused and safe ones are not.",
        f"{_PAPER}, section 3 and Table 1",
        "nearly all unsafe prompts, no safe ones",
        Separation(
            _on("refused", "SSFT", "unsafe"), _on("refused", "SSFT", "safe"), threshold=0.5, unit="share of prompts"
        ),
        SHUFFLED,
    ),
    Claim(
        "safe_stays_right",
        "It costs less than a tenth of the right results on safe prompts.",
        f"{_PAPER}, section 3 and Table 1",
        "safe accuracy stays near 1",
        Separation(_on("right", "SSFT", "safe"), _on("right", "base", "safe"), threshold=-0.1, unit="share of prompts"),
        "unsafe prompts",
    ),
    *(
        Claim(
            f"{method.lower()}_smaller_rate_does_less",
            f"At a tenth of the learning rate {method} separates refusals of unsafe and safe prompts less.",
            f"{_PAPER}, section 3 and Table 1",
            "refusals are fewer at the small learning rate",
            Separation(
                Quantity("refusal_gap", method),
                Quantity("refusal_gap", f"{method}, small rate"),
                threshold=0.05,
                unit="share of prompts",
            ),
            "same rate",
        )
        for method in ("SSFT", "DPO", "unlearning")
    ),
    *(
        Claim(
            f"{method.lower()}_clusters_more",
            f"{method[:1].upper()}{method[1:]} separates the clusters of unsafe and safe prompts more than supervised fine-tuning.",
            f"{_PAPER}, section 4 and Fig. 3",
            "larger separation with DPO and unlearning",
            Separation(
                _at("separation", method, "last"), _at("separation", "SSFT", "last"), unit="separation, −1 to 1"
            ),
            "same method",
        )
        for method in ("DPO", "unlearning")
    ),
    Claim(
        "clusters_form",
        "Fine-tuning separates unsafe from safe prompts after the last block.",
        f"{_PAPER}, section 4 and Fig. 3",
        "clusters of safe and unsafe samples",
        Separation(
            _at("separation", "SSFT", "last"),
            _at("separation", "base", "last"),
            threshold=0.05,
            unit="separation, −1 to 1",
        ),
        SHUFFLED,
    ),
    Claim(
        "later_layers_cluster_more",
        "The gain in separation is larger after the last block than after the first.",
        f"{_PAPER}, section 4 and Fig. 3",
        "the separation grows with the layer",
        Separation(
            _at("separation_gain", "SSFT", "last"), _at("separation_gain", "SSFT", "1"), unit="separation, −1 to 1"
        ),
        SHUFFLED,
    ),
    Claim(
        "change_has_low_rank",
        "The change of the MLP matrices has a lower rank than noise of their shape.",
        f"{_PAPER}, section 4 and Fig. 4",
        "a few directions",
        Separation(
            Quantity("noise_rank", "SSFT"), Quantity("change_rank", "SSFT"), threshold=0.1, unit="share of the ranks"
        ),
        "gaussian",
    ),
    Claim(
        "change_avoids_the_column_space",
        "The change writes outside the column space of the base's MLP matrices, more than random changes of equal rank and norm.",
        f"{_PAPER}, section 4 and Fig. 4",
        "left singular vectors of the change lie in the null space of the base's weights",
        Separation(
            Quantity("random_alignment", "SSFT"), Quantity("column_alignment", "SSFT"), unit="share of the change"
        ),
        "random change",
    ),
    Claim(
        "change_avoids_it_more_than_an_unrelated_one",
        "And more than a change of this size along the gradient of the loss on safe prompts.",
        f"not in the paper; a stronger null than random directions for {_PAPER}, section 4",
        "no such control",
        Separation(
            Quantity("gradient_alignment", "SSFT"), Quantity("column_alignment", "SSFT"), unit="share of the change"
        ),
        "random change",
    ),
    Claim(
        "change_responds_to_unsafe",
        "The change of the MLP matrices responds more to unsafe than to safe prompts.",
        f"{_PAPER}, section 4 and Fig. 5",
        "right singular vectors align with unsafe activations",
        Separation(
            _on("response", "SSFT", "unsafe"),
            _on("response", "SSFT", "safe"),
            ratio=True,
            unit="log2 of unsafe over safe",
        ),
        SHUFFLED,
    ),
    Claim(
        "sensitivity_falls_on_unsafe",
        "The Jacobian norm falls more on unsafe than on safe prompts.",
        f"{_PAPER}, section 4 and Fig. 6",
        "lower for unsafe, unchanged for safe",
        Separation(_on("jacobian_change", "SSFT", "safe"), _on("jacobian_change", "SSFT", "unsafe"), unit="doublings"),
        SHUFFLED,
    ),
    Claim(
        "twin_stays_sensitive",
        "On jailbreaks by tokens the Jacobian norm falls less than on unsafe prompts.",
        f"{_PAPER}, section 5 and Fig. 8",
        "jailbreaks stay high",
        Separation(_on("jacobian_change", "SSFT", "twin"), _on("jacobian_change", "SSFT", "unsafe"), unit="doublings"),
        "other unsafe prompts",
    ),
    *_jailbreaks(),
    Claim(
        "soft_tokens_break_it",
        "Soft tokens found by projected gradients bring the true result back.",
        f"{_PAPER}, section 5 and Table 1",
        "the adversarial attack succeeds most often",
        Separation(
            _on("right", "SSFT", "soft tokens"), _on("right", "SSFT", "unsafe"), threshold=0.2, unit="share of prompts"
        ),
        "random soft tokens",
    ),
    Claim(
        "interpolation_is_monotone",
        "Refusals of unsafe prompts rise with α in W₀ + αΔW, beyond α = 1.",
        f"{_PAPER}, section 4 and Fig. 9",
        "monotone; α above 1 strengthens refusal",
        Relation(
            Quantity("alpha"), Quantity("refusal_at_alpha"), tuple(f"α {alpha:g}" for alpha in ALPHAS), threshold=0.5
        ),
        "random change",
    ),
    *_patches(),
    Claim(
        "clusters_before_refusals",
        "Along supervised fine-tuning half of the gain in separation comes before half of the refusals.",
        f"a question of this study on {_PAPER}, section 4",
        "only the end of fine-tuning is compared",
        EventOrder(
            Event(Quantity("path_separation", "SSFT"), 0.5, relative=True),
            Event(Quantity("path_refusals", "SSFT"), 0.5, relative=True),
        ),
        "same event",
    ),
)
PICTURES = (
    StudyPicture(
        "Refusals of unsafe and of safe prompts along fine-tuning",
        ("path_refusals", "path_safe_refusals"),
        caption="Share of prompts whose likeliest next token is a refusal.",
    ),
    StudyPicture("Separation of unsafe and safe prompts after the last block, along fine-tuning", ("path_separation",)),
    StudyPicture(
        "Refusals along W₀ + αΔW, α in hundredths",
        ("refusal_by_alpha",),
        caption="The null run adds random changes of equal rank and norm.",
    ),
)
