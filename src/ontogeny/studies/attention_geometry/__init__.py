"""Study: does distance in one space of queries and keys show attention, which heads can be seen there, and when do they form?

AttentionViz (arXiv:2305.03210) on a small GPT of returning phrases, at checkpoints, and on a small ViT of painted scenes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ontogeny.activations.attention_geometry import plane_of
from ontogeny.activations.head_layouts import compared_head_scores, distance_tracks, label_shares
from ontogeny.activations.patch_labels import HUES, PATCH_LABELS
from ontogeny.jobs.study.paper_study import Lab, StudyPicture
from ontogeny.records import Record
from ontogeny.studies.attention_geometry._claims import (
    BEST,
    CLAIMS,
    COMPARED,
    HEAD_METRICS,
    MOVED_AND_SCALED,
    PERMUTED,
)
from ontogeny.studies.attention_geometry._images import ReadImages, read_images_while_training
from ontogeny.studies.attention_geometry._language import (
    LANGUAGES,
    MANY_PHRASES,
    ONE_PHRASE,
    ReadTexts,
    read_while_training,
)
from ontogeny.studies.attention_geometry._settings import Settings

__all__ = ["CLAIMS", "PICTURES", "PRESETS", "SECONDS", "Settings", "run"]

TITLE = "Geometry of attention"
PAPER = "AttentionViz: A Global View of Transformer Attention, arXiv:2305.03210"
SETUP = """
A GPT-2 of two blocks learns rows in which phrases of random words return in random order, beside rows with a rule over two words, so
that the words are needed. Another one learns rows of one phrase, again and again, for which the position is enough. At checkpoints,
queries and keys of every head are put into one space by the published move and scale. Heads are chosen on one half of the texts and
reported on the other. A ViT of two blocks learns to name hue and place of the nearest shape in painted scenes; its queries and keys are
compared with labels of the patches.
"""
DIFFERENCES = (
    "Models of two blocks of four heads that are trained here, in place of BERT, GPT-2 and ViT-B; the paper reads one checkpoint.",
    "The scale gives queries and keys one mean norm, as an option of the paper's code; the paper chooses it by the correlation.",
    "Patterns that the paper sees in pictures are numbers here, each beside a comparison: shuffled positions or labels, another token, the "
    "untrained model.",
)
CHALLENGES = (3,)
PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(
        steps=2, rows=4, width=16, texts=6, measured=2, image_steps=1, image_rows=4, image_width=16, side=8, images=6, shuffles=1,
    ),
    "tiny": Settings(),
    "small": Settings(steps=5000, width=128, layers=4, words=64, length=96, texts=64, measured=20, image_steps=4000, image_width=96),
    "paper": Settings(
        steps=50_000, width=768, layers=12, heads=12, words=1000, length=512, texts=64, measured=30, image_steps=50_000,
        image_width=768, side=224, patch=16,
    ),
}  # fmt: skip
SECONDS = {"smoke": 1, "tiny": 25, "small": 1500, "paper": 500_000}
PICTURES = (
    StudyPicture(
        "Scores of the best heads over training",
        HEAD_METRICS,
        (BEST, COMPARED),
        caption="The head that is best at the end on one half of the texts, on the other half. Compared: the token two back, the equal "
        "token, the second token, shuffled positions.",
    ),
    StudyPicture("Minus the correlation of distance and dot product over training", ("distance_tracks_along",)),
    StudyPicture("Queries and keys of the best heads in one plane", ("plane_x", "plane_y"), view="attention_plane"),
)
_SCORES = {
    MANY_PHRASES: ("previous_token", "induction"),
    ONE_PHRASE: ("sink_norm", "position_share", "spiral", "first_token"),
}
"""Scores by the language in which they are claimed; in the null run of the order over training all are the curve of the last one."""
_SHOWN = ("previous_token", "induction", "first_token", "spiral")


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed."""
    for language in LANGUAGES:
        reads: list[ReadTexts] = []
        for read in read_while_training(settings, language, lab.seed):
            lab.on_activity(language, read.step, settings.steps)
            reads.append(read)
            yield lab.row("returning_words", read.accuracy, language, step=read.step, n=len(read.ids))
        yield from _distance_rows(reads, language, lab)
        yield from _head_rows(reads, language, settings, lab)
    lab.on_activity("image model", 0, settings.image_steps)
    yield from _image_rows(list(read_images_while_training(settings, lab.seed)), settings, lab)


def _distance_rows(reads: list[ReadTexts], language: str, lab: Lab) -> Iterator[Record]:
    for read in reads:
        tracks = distance_tracks(read.vectors, seed=lab.seed)
        for condition, value in tracks.items():
            yield lab.row("distance_tracks_along", value, condition, step=read.step, n=len(read.ids), language=language)
    for condition, value in tracks.items():
        yield lab.row("distance_tracks", value, condition, n=len(reads[-1].ids), language=language)
        # In the null run each condition is a permutation of the pairs.
        half = reads[-1].vectors[condition == MOVED_AND_SCALED :: 2]
        mixed = distance_tracks(half, seed=lab.seed + 1)[PERMUTED]
        yield lab.row("distance_tracks", mixed, condition, n=len(half), control="permuted_pairs", language=language)


def _head_rows(reads: list[ReadTexts], language: str, settings: Settings, lab: Lab) -> Iterator[Record]:
    """Scores of the head that is best on one half of the texts at the end, on the other half; and its plane."""
    chosen, reported = (
        [
            compared_head_scores(read.vectors[part::2], read.ids[part::2], shuffles=settings.shuffles, seed=lab.seed)
            for read in reads
        ]
        for part in (0, 1)
    )
    n = len(reads[-1].ids) // 2
    for metric in _SCORES[language]:
        by = "first_token" if metric == "sink_norm" else metric
        for control, ends in ((None, -1), ("untrained", 0)):
            at = _best(chosen[ends][by])
            for condition, scores in zip((BEST, COMPARED), reported[ends][metric], strict=True):
                yield lab.row(f"{metric}_end", float(scores[at]), condition, n=n, control=control, head=_name(at))
        at = _best(chosen[-1][by])
        for number, read in enumerate(reads):
            for condition, scores in zip((BEST, COMPARED), reported[number][metric], strict=True):
                yield lab.row(metric, float(scores[at]), condition, step=read.step, n=n)
            last = _SCORES[language][-1]
            other = float(chosen[number][last][0][_best(chosen[-1][last])])
            yield lab.row(metric, other, BEST, step=read.step, n=n, control="same_curve")
        if metric in _SHOWN:
            # A spiral is the path of the means; other heads are shown on one text.
            shown = reads[-1].vectors if metric == "spiral" else reads[-1].vectors[1:2]
            queries, keys = (
                torch.stack([getattr(one, part)[at] for one in shown]).mean(0) for part in ("queries", "keys")
            )
            points = plane_of(queries, keys)
            places = range(len(points) // 2)
            yield from _plane_rows(
                lab, points, f"{metric.replace('_', ' ')}, {_name(at)}", "position", list(map(str, places))
            )


def _image_rows(reads: list[ReadImages], settings: Settings, lab: Lab) -> Iterator[Record]:
    for read in reads:
        yield lab.row("named_shapes", read.accuracy, "image model", step=read.step, n=len(read.vectors))
    count = len(reads[-1].vectors)
    for label in PATCH_LABELS:
        for read, state in zip((reads[0], reads[-1]), ("untrained", "trained"), strict=True):
            halves = [read.half(part) for part in (0, 1)]
            (chosen, mixed), (share, shuffled) = (
                label_shares(half.vectors, half.labels[label], shuffles=settings.shuffles, seed=lab.seed)
                for half in halves
            )
            at = _best((chosen, mixed))
            condition = f"{label}, {state}"
            yield lab.row("label_share", float((share - shuffled)[at]), condition, n=count // 2, head=_name(at))
            # The null chooses its head by shuffled labels as well.
            own = halves[1]
            null = label_shares(own.vectors, own.labels[label], shuffles=1, seed=lab.seed + 1)[1] - shuffled
            yield lab.row(
                "label_share",
                float(null[_best((mixed, chosen * 0))]),
                condition,
                n=count // 2,
                control="shuffled_labels",
            )
        vectors = reads[-1].vectors[1]
        values = reads[-1].labels[label][1].tolist()
        names = [HUES[v] if label == "hue" else str(v) for v in values]
        points = plane_of(vectors.queries[at][1:], vectors.keys[at][1:])
        yield from _plane_rows(lab, points, f"{label} of the patch, {_name(at)}", label, names)


def _best(scores: tuple[Tensor, Tensor]) -> tuple[int, int]:
    """Layer and head, from 0, with the largest score beyond what it is compared with."""
    gap = (scores[0] - scores[1]).nan_to_num(-1.0)
    return divmod(int(gap.argmax()), gap.shape[1])


def _name(at: tuple[int, int]) -> str:
    return f"head.{at[0] + 1}.{at[1]}"


def _plane_rows(lab: Lab, points: Tensor, panel: str, tint: str, labels: list[str]) -> Iterator[Record]:
    for number, (x, y) in enumerate(points.tolist()):
        kind, token = ("query", number) if number < len(labels) else ("key", number - len(labels))
        coords: dict[str, Any] = {"panel": panel, "tint": tint, "label": labels[token], "kind": kind, "token": token}
        yield lab.row("plane_x", x, "trained", **coords)
        yield lab.row("plane_y", y, "trained", **coords)
