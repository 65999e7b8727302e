"""Claims of the two papers on abrupt learning."""

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Event, Quantity
from ontogeny.claims.shapes import EventOrder, PlateauThenDrop, Separation


def _right(condition: str, level: float = 0.5) -> Event:
    return Event(Quantity("accuracy", condition), level)


def _completed(condition: str) -> Event:
    return Event(Quantity("missing_loss", condition), 0.7, direction="fall")


PLATEAU, END = "plateau", "end"
CLAIMS = (
    Claim(
        "plateau_then_drop",
        "The loss of the sums stays on a plateau and then falls within a shorter time.",
        "arXiv:2506.13688, section 2 and Fig. 1",
        "plateau, then a sudden drop",
        PlateauThenDrop(Quantity("sum_loss", "window")),
        "fixed_outputs",
    ),
    Claim(
        "attention_first",
        "Attention reaches the right sources before the outputs are right.",
        "arXiv:2506.13688, section 3",
        "attention progress rises before the loss falls",
        EventOrder(Event(Quantity("attention_share", "window"), 0.4), _right("window", 0.9)),
        "other_positions",
    ),
    Claim(
        "repetition",
        "On the plateau the model repeats its outputs more than at the end.",
        "arXiv:2506.13688, section 3",
        "repetition during the plateau",
        Separation(
            Quantity("repetition_phase", PLATEAU),
            Quantity("repetition_phase", END),
            threshold=0.05,
            unit="share of outputs",
        ),
        "random_outputs",
    ),
    Claim(
        "collapse",
        "On the plateau the states of different outputs are more alike than at the end.",
        "arXiv:2506.13688, section 3",
        "representation collapse",
        Separation(
            Quantity("cosine_phase", PLATEAU),
            Quantity("cosine_phase", END),
            threshold=0.1,
            unit="mean cosine of states",
        ),
        "untrained",
    ),
    Claim(
        "boost_shortens_plateau",
        "Larger attention scores at the right sources from the start shorten the plateau.",
        "arXiv:2506.13688, section 4",
        "earlier drop with a bias towards the right sources",
        EventOrder(_right("window, boosted"), _right("window")),
        "other_positions",
    ),
    Claim(
        "mlp_is_not_late",
        "With all other parts as at the end, the MLP alone is learned earlier than the whole model.",
        "arXiv:2410.22244, section 6 and Fig. 8",
        "no plateau for token embeddings and MLP",
        EventOrder(_right("MLP alone"), _right("window")),
        "all_again",
    ),
    Claim(
        "attention_is_late",
        "The MLP alone is learned earlier than attention alone.",
        "arXiv:2410.22244, section 6 and Fig. 8",
        "the plateau remains for positions and attention",
        EventOrder(_right("MLP alone"), _right("attention alone")),
        "all_again",
    ),
    Claim(
        "copies_first",
        "Observed entries of a matrix are learned before missing ones.",
        "arXiv:2410.22244, section 3 and Fig. 2",
        "loss on observed entries falls first",
        EventOrder(
            Event(Quantity("observed_loss", "matrix"), 0.2, direction="fall"),
            Event(Quantity("missing_loss", "matrix"), 0.2, direction="fall"),
        ),
        "random_halves",
    ),
    Claim(
        "copy_test",
        "On the plateau the model returns a number that is written in the place of a missing entry.",
        "arXiv:2410.22244, section 3 and Table 1",
        "before the drop the replacement is returned, after it not",
        Separation(
            Quantity("copy_error", "untrained"),
            Quantity("copy_error", PLATEAU),
            ratio=True,
            threshold=1.0,
            unit="log2 of the error",
        ),
        "untrained",
    ),
    Claim(
        "matrix_drop",
        "The loss on missing entries stays on a plateau and then falls by more than a third.",
        "arXiv:2410.22244, section 3 and Fig. 1",
        "drop between steps 14,000 and 20,000 at 7 × 7, rank 2",
        PlateauThenDrop(Quantity("missing_loss", "matrix"), factor=1.5),
        "shuffled_entries",
    ),
    Claim(
        "below_nuclear_norm",
        "The encoder's error at missing entries is below that of the completion of least nuclear norm.",
        "arXiv:2410.22244, section 3 and Fig. 3",
        "lower error than the convex program at 30 % missing entries",
        Separation(
            Quantity("completion_error", "least nuclear norm"),
            Quantity("completion_error", "encoder"),
            ratio=True,
            unit="log2 of the error",
        ),
        "plateau",
    ),
    Claim(
        "heads_specialise",
        "After the drop heads attend to the row, the column or the entry itself more than on the plateau.",
        "arXiv:2410.22244, section 4 and Fig. 4",
        "after the drop most heads have one of these patterns",
        Separation(
            Quantity("head_pattern", END),
            Quantity("head_pattern", PLATEAU),
            threshold=0.1,
            unit="times uniform attention",
        ),
        "permuted_entries",
    ),
    Claim(
        "element_readable",
        "Missing elements are readable from the last block after the drop, not on the plateau.",
        "arXiv:2410.22244, section 5 and Fig. 6",
        "the error of a least-squares probe falls over the layers after the drop",
        Separation(
            Quantity("element_r2", f"{END}, last block"),
            Quantity("element_r2", f"{PLATEAU}, last block"),
            threshold=0.1,
            unit="explained variance",
        ),
        "shuffled_targets",
    ),
    Claim(
        "row_in_late_blocks",
        "After the drop the row of an entry is read better from the last block than from the first.",
        "arXiv:2410.22244, section 5 and Fig. 6",
        "layers 3 and 4 far better than 1 and 2",
        Separation(
            Quantity("row_r2", f"{END}, last block"),
            Quantity("row_r2", f"{END}, first block"),
            unit="explained variance",
        ),
        "untrained",
    ),
    Claim(
        "symmetric_embeddings",
        "The norms of the embeddings of a number and of its negative become equal.",
        "arXiv:2410.22244, section 5 and Fig. 7",
        "norms are symmetric in the value",
        Separation(
            Quantity("embedding_asymmetry", "untrained"),
            Quantity("embedding_asymmetry", END),
            threshold=0.05,
            unit="log2 of the ratio of norms, before minus after",
        ),
        "unused_numbers",
    ),
    Claim(
        "heads_carry_the_matrix",
        "After the drop, heads patched from X into a run on −X move the missing entries to X; on the plateau they do not.",
        "arXiv:2410.22244, section 4",
        "patching the heads of one layer moves missing entries",
        Separation(
            Quantity("patched_slope", END), Quantity("patched_slope", PLATEAU), threshold=0.1, unit="slope on X"
        ),
        "other_matrices",
    ),
    *(
        Claim(
            f"encoder_{name}_not_late",
            f"With all other parts as at the end, the {part} alone {verb} learned earlier than the positions alone.",
            "arXiv:2410.22244, section 6 and Fig. 8",
            "no plateau for token embeddings and MLP; it remains for positions",
            EventOrder(_completed(f"{part} of the encoder alone"), _completed("positions of the encoder alone")),
            "mlp_again",
        )
        for name, part, verb in (("mlp", "MLP", "is"), ("tokens", "token embeddings", "are"))
    ),
)
