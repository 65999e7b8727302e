"""Claims of the study, and the order in which geometry forms, which the paper does not ask."""

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Event, Quantity
from ontogeny.claims.shapes import EventOrder, Relation, Separation

_PAPER = "arXiv:2503.21073"
SAME, OTHER = "same corpus", "other corpus"


def _above(metric: str, threshold: float) -> Separation:
    """A similarity of two models of one corpus above that of tokens shuffled within frequencies."""
    sides = Quantity(metric, SAME), Quantity(f"{metric}_matched", SAME)
    return Separation(*sides, threshold=threshold, unit="correlation above the null")


def _half(metric: str) -> Event:
    return Event(Quantity(metric, SAME), 0.5, relative=True, hold=2)


def _steers(arm: str, beside: str) -> Separation:
    at = {"dose": "1.0"}
    return Separation(
        Quantity("effect", arm, coords=at), Quantity("effect", beside, coords=at), unit="nats of the log odds"
    )


CLAIMS = (
    Claim(
        "shared_global",
        "Two models of one corpus, of other widths and seeds, have similar cosines between tokens, beyond what frequency explains.",
        f"{_PAPER}, global geometry",
        "high Pearson correlations of token similarities within each family",
        _above("global_similarity", threshold=0.1),
        "untrained",
    ),
    Claim(
        "shared_local",
        "Their tokens are written by the same neighbours with the same weights.",
        f"{_PAPER}, locally linear embeddings",
        "weights of locally linear embeddings are alike across models",
        _above("local_similarity", threshold=0.05),
        "untrained",
    ),
    Claim(
        "corpus_decides",
        "Models of another corpus with the same words and frequencies share less of the global geometry.",
        f"{_PAPER}, global geometry; the paper compares families, not corpora",
        "not tested",
        Separation(
            Quantity("global_similarity", SAME), Quantity("global_similarity", OTHER), threshold=0.1, unit="correlation"
        ),
        "same_corpus",
    ),
    Claim(
        "low_dimension",
        "Trained embeddings lie in fewer dimensions than a Gaussian cloud of their covariance.",
        f"{_PAPER}, intrinsic dimension",
        "token embeddings lie on a lower-dimensional manifold",
        Separation(
            Quantity("gaussian_dimension", SAME),
            Quantity("intrinsic_dimension", SAME),
            ratio=True,
            threshold=0.2,
            unit="log2 of the cloud's dimension over the model's",
        ),
        "untrained",
    ),
    Claim(
        "dimensions_shared",
        "A token of low local dimension in one model has a low one in the other, beyond what frequency explains.",
        f"{_PAPER}, intrinsic dimension",
        "intrinsic dimensions correlate across models",
        _above("dimension_similarity", threshold=0.1),
        "untrained",
    ),
    Claim(
        "low_is_coherent",
        "Tokens of low local dimension have more neighbours of their own class than tokens of high dimension.",
        f"{_PAPER}, qualitative examples",
        "tokens of low intrinsic dimension form semantically coherent clusters",
        Separation(Quantity("coherence", "lowest"), Quantity("coherence", "highest"), unit="share of neighbours"),
        "shuffled_classes",
    ),
    Claim(
        "hidden_persists",
        "The hidden states of the last layer still share their geometry, beyond what frequency explains.",
        f"{_PAPER}, hidden states",
        "correlations persist through the layers",
        Separation(
            Quantity("hidden_similarity", "last layer"),
            Quantity("hidden_similarity_matched", "last layer"),
            threshold=0.1,
            unit="correlation above the null",
        ),
        "untrained",
    ),
    Claim(
        "hidden_decays",
        "The shared geometry of hidden states falls with depth.",
        f"{_PAPER}, hidden states",
        "correlations decay with depth",
        Relation(
            Quantity("depth"),
            Quantity("hidden_similarity"),
            ("layer 0", "layer 1", "layer 2", "last layer"),
            sign=-1,
        ),
        "one_layer",
    ),
    Claim(
        "global_before_local",
        "During training the global geometry is half formed before the local one.",
        "not in a paper: a question of this library",
        "not tested",
        EventOrder(_half("global_similarity"), _half("local_similarity")),
        "same_curve",
    ),
    Claim(
        "activation_map_steers",
        "A vector mapped by activations steers the other model more than one mapped by shuffled activations.",
        f"{_PAPER}, Emb2Emb; the paper maps by embeddings",
        "not tested",
        _steers("activations", "shuffled activations"),
        "untrained",
    ),
    Claim(
        "embedding_map_steers",
        "A vector mapped by embeddings steers the other model more than one mapped by shuffled embeddings.",
        f"{_PAPER}, Emb2Emb",
        "transferred vectors steer, with the sign of the native one",
        _steers("embeddings", "shuffled embeddings"),
        "untrained",
    ),
    Claim(
        "identity_does_not_steer_as_well",
        "The vector as it is, without a map, steers less than the one mapped by embeddings.",
        f"{_PAPER}, Emb2Emb",
        "a map is needed",
        _steers("embeddings", "identity"),
        "untrained",
    ),
    Claim(
        "embeddings_carry_embeddings",
        "A vector between mean embeddings of two topics, mapped by the embeddings of other words, is nearer to the target's own than a "
        "vector of hidden states mapped by all embeddings.",
        "not in a paper: a question of this library",
        "not tested",
        Separation(
            Quantity("vector_cosine", "embedding vector"),
            Quantity("vector_cosine", "embeddings"),
            unit="cosine with the target's own",
        ),
        "untrained",
    ),
    Claim(
        "activations_carry_more",
        "The map of activations carries more of the vector than the map of embeddings.",
        "not in a paper: a question of this library",
        "not tested",
        _steers("activations", "embeddings"),
        "untrained",
    ),
)
