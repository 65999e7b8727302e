"""Study: why does the loss stay on a plateau and then fall at once, and which part of the model is late?

Abrupt learning (arXiv:2410.22244, 2506.13688). Two tasks: sums over a moving window with a linear-attention decoder, which shows the whole
course in seconds; and completion of low-rank matrices by a BERT encoder, which first copies and then completes.
"""

from collections.abc import Iterator, Mapping

from ontogeny.jobs.study.paper_study import Lab, StudyPicture
from ontogeny.records import Record
from ontogeny.studies.abrupt_learning._claims import CLAIMS
from ontogeny.studies.abrupt_learning._matrix import matrix_rows
from ontogeny.studies.abrupt_learning._settings import Settings
from ontogeny.studies.abrupt_learning._window import window_rows
from ontogeny.training.toy_models.linear_attention import PARTS
from ontogeny.training.toy_models.matrix_encoder import MATRIX_PARTS

__all__ = [
    "CHALLENGES",
    "CLAIMS",
    "DIFFERENCES",
    "PAPER",
    "PICTURES",
    "PRESETS",
    "SECONDS",
    "SETUP",
    "TITLE",
    "Settings",
    "run",
]

TITLE = "Abrupt learning"
PAPER = "Abrupt Learning in Transformers, arXiv:2410.22244; What Happens During the Loss Plateau?, arXiv:2506.13688"
SETUP = """
A decoder with one linear-attention block learns sums of neighbouring inputs; its attention on the right sources, repeated outputs and the
similarity of its states are measured on the way. A BERT encoder completes matrices of low rank from most of their entries; on its plateau
and at its end its heads, its states and its embeddings are read, and heads are patched between a matrix and its negative. In both models
one part at a time is trained again from random weights, with all others as they were at the end.
"""
DIFFERENCES = (
    "The plateau of the moving window is that of the sums, without the first output, which is a copy. With 8 outputs that copy is an "
    "eighth of the loss and is learned early, so that the plateau of the whole loss is half as long as its drop.",
    "Matrices of rank one from few levels, 3 × 3 (tiny) or 4 × 4 (small): with entries of one decimal the drop does not come within "
    "4,000 steps (docs/log.md). Preset paper has the paper's matrices.",
    "AdamW without weight decay in place of Adam; a warm-up of 50 steps and larger initial weights for the encoder.",
)
CHALLENGES = (2, 11)


PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(
        length=5, modulus=5, width=32, steps=60, every=20, matrix_steps=20, matrix_width=32, matrix_batch=32, part_steps=4,
    ),
    "tiny": Settings(),
    "small": Settings(
        length=16, modulus=17, width=128, steps=1500, matrix=4, matrix_missing=0.3, matrix_steps=8000, part_steps=4000,
    ),
    "paper": Settings(
        length=16, modulus=17, width=256, steps=2000, rate=1e-4, batch=256, matrix=7, matrix_rank=2, matrix_factors="uniform",
        matrix_largest=10.0, matrix_missing=0.3, matrix_steps=50_000, matrix_rate=1e-4, matrix_batch=256, matrix_width=768,
        matrix_layers=4, matrix_spread=0.02, matrix_warmup=0, matrix_beta=0.999, part_steps=50_000,
    ),
}  # fmt: skip
SECONDS = {"smoke": 4, "tiny": 50, "small": 1500, "paper": 500_000}


PICTURES = (
    StudyPicture("Loss, moving window", ("loss", "sum_loss"), ("window", "window, boosted")),
    StudyPicture(
        "Share of right outputs", ("accuracy",), ("window", "window, boosted", *(f"{part} alone" for part in PARTS))
    ),
    StudyPicture(
        "Attention on the right sources, repetition, similarity of states",
        ("attention_share", "repetition", "state_cosine"),
        ("window",),
    ),
    StudyPicture(
        "Loss on observed and missing entries, as a share of the variance",
        ("observed_loss", "missing_loss"),
        ("matrix",),
        log_y=True,
    ),
    StudyPicture(
        "Loss on missing entries while one part of the encoder is trained alone",
        ("missing_loss",),
        tuple(f"{part} of the encoder alone" for part in MATRIX_PARTS),
    ),
)


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed: the moving window under its conditions, one part at a time, and matrices."""
    yield from window_rows(settings, lab)
    lab.on_activity("matrices", 4, 5)
    yield from matrix_rows(settings, lab)
