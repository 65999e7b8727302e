"""Claims of the study of sparse autoencoders on formal languages."""

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Quantity
from ontogeny.claims.shapes import Separation

NAMES = {"dyck": "Dyck-2", "expressions": "prefix expressions", "english": "English"}
FEATURES = {"dyck": "depth", "expressions": "number of operands owed", "english": "part of speech verb"}
_SOURCE = "arXiv:2410.11767"

CLAIMS = (
    Claim(
        "model_is_grammatical",
        "Dyck-2: the language model gives nearly all probability to tokens that may follow.",
        f"{_SOURCE}, section 3",
        "nearly all generations are grammatical",
        Separation(
            Quantity("grammatical_mass", "dyck", coords={"kind": "none"}),
            Quantity("chance_mass", "dyck"),
            threshold=0.3,
            unit="probability, above that of an untrained model",
        ),
        "untrained",
    ),
    *(
        Claim(
            f"{name}_model_is_grammatical",
            f"{NAMES[name]}: most strings that the model writes are complete and grammatical.",
            f"{_SOURCE}, section 3",
            "nearly all generations are grammatical",
            Separation(
                Quantity("written_right", name),
                Quantity("chance_written_right", name),
                threshold=0.5,
                unit="share of the written strings, above that of an untrained model",
            ),
            "untrained",
        )
        for name in ("expressions", "english")
    ),
    *(
        Claim(
            f"{name}_feature_is_correlated",
            f"{NAMES[name]}: a latent correlates above 0.9 with the {FEATURES[name]}.",
            f"{_SOURCE}, section 4.2",
            "latents with correlations above 0.9",
            Separation(
                Quantity("best_r", name),
                Quantity("needed_r", name),
                unit="|r| of the best latent of all kinds minus 0.9",
            ),
            "permuted_features",
        )
        for name in NAMES
    ),
    *(
        Claim(
            f"{name}_feature_is_learned",
            f"{NAMES[name]}: the {FEATURES[name]} correlates better with a latent at the end than in the untrained model.",
            f"{_SOURCE}, section 4.2",
            "not reported; an untrained model is the floor",
            Separation(
                Quantity("feature_r", name, coords={"main": "yes"}),
                Quantity("untrained_r", name),
                threshold=0.05,
                unit="difference of |r|",
            ),
            "permuted_features",
        )
        for name in NAMES
    ),
    *(
        Claim(
            f"{name}_correlation_exceeds_effect",
            f"{NAMES[name]}: the latent that correlates with the {FEATURES[name]} has less effect than its correlation predicts, compared "
            "with latents that fire as often and are clamped as far.",
            f"{_SOURCE}, section 4.3",
            "correlated latents have no or unpredictable effects when clamped",
            Separation(
                Quantity("shortfall", f"{name}, best latent"),
                Quantity("shortfall", f"{name}, matched latents"),
                unit="share of the natural effect that is missing, more than in matched latents",
            ),
            "other_matched_latents",
        )
        for name in NAMES
    ),
    *(
        Claim(
            f"{name}_causal_loss_helps",
            f"{NAMES[name]}: with the causal loss a step in latent space moves the logits more as it should.",
            f"{_SOURCE}, section 5",
            "helps on English; limited success on Dyck-2 and expressions",
            Separation(
                Quantity("causal_score", f"{name}, causal"),
                Quantity("causal_score", f"{name}, plain"),
                threshold=0.02,
                unit="difference of the share of the step",
            ),
            "no_causal_loss",
        )
        for name in NAMES
    ),
    *(
        Claim(
            f"{name}_causal_loss_keeps_reconstruction",
            f"{NAMES[name]}: with the causal loss an autoencoder explains at most .05 less of the variance.",
            f"{_SOURCE}, section 5",
            "at some cost",
            Separation(
                Quantity("explained", f"{name}, causal"),
                Quantity("explained", f"{name}, plain"),
                threshold=-0.05,
                unit="explained variance with the causal loss minus without it",
            ),
            "one_step",
        )
        for name in NAMES
    ),
    *(
        Claim(
            claim,
            f"{NAMES[name]}: the sparsest autoencoders lose grammaticality that the densest keep.",
            f"{_SOURCE}, section 4.1 and Fig. 3",
            "only a part of the grid keeps grammaticality",
            Separation(
                Quantity("densest_mass", name), Quantity("sparsest_mass", name), threshold=0.01, unit="probability"
            ),
            "no_edit",
        )
        for claim, name in (("sparse_loses_grammar", "dyck"), ("expressions_sparse_loses_grammar", "expressions"))
    ),
    Claim(
        "kind_matters_more_than_seed",
        "Dyck-2: the correlation with depth varies more over kinds and sizes than over seeds.",
        f"{_SOURCE}, section 4.4",
        "features depend on the inductive biases",
        Separation(
            Quantity("r_spread", "dyck, kinds"),
            Quantity("r_spread", "dyck, seeds"),
            threshold=0.02,
            unit="difference of standard deviations of |r|",
        ),
        "one_kind",
    ),
    Claim(
        "shift_hurts",
        "An autoencoder trained on shallower brackets explains less of deep ones than one trained on them.",
        f"{_SOURCE}, section 4.4",
        "autoencoders do not carry over to another distribution",
        Separation(
            Quantity("explained", "dyck, own strings"),
            Quantity("explained", "dyck, shallow strings"),
            threshold=0.001,
            unit="explained variance",
        ),
        "same_strings",
    ),
)
