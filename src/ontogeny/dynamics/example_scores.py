"""Held-out score of single examples at a concept's best site, at every checkpoint: which texts does a probe get wrong, and since when?

The rows come from the scores that each unit keeps, so no model is loaded. At most 120 examples of a concept have rows: 96 that are
spread evenly over the classes, and the 24 that the probe of the last checkpoint gets most wrong. Texts are cut to 160 characters.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.data.concept import Concept
from ontogeny.dynamics.blocks import cell_block, cell_places
from ontogeny.dynamics.measured_checkpoints import BestSite, MeasuredCheckpoint, measured_checkpoints
from ontogeny.dynamics.summary import best_site
from ontogeny.measurements.design import Design
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.records import Record, stamp_checkpoint
from ontogeny.storage.files import RecordBlock, content_digest
from ontogeny.storage.run import Run

_EVENLY_SPREAD, _MOST_WRONG = 96, 24
_TEXT_LETTERS = 160
_VERSION = 1
_FAILED = "degenerate scores"


def keep_example_scores(run: Run, designs: Mapping[str, Design], lineage: str, seed: int, *, texts: bool) -> None:
    """Write the example rows of each concept, in place of those over other checkpoints.

    Args:
        texts: Whether the rows hold the beginning of each text.
    """
    for name, design in designs.items():
        visits = measured_checkpoints(run, name)
        if not visits:
            continue
        prefix = f"examples-{content_digest(name)}"
        unit = f"{prefix}-{content_digest([_VERSION, design.concept.hash, texts, [visit.unit for visit in visits]])}"
        if not run.done(unit):
            best = best_site(run, visits)
            visits = [visit for visit in visits if best.site in visit.sites.get(best.part, ())]
            run.keep(
                unit, CheckpointStamp(lineage, unit).sign(_example_rows(run, design, visits, best, seed, texts=texts))
            )
        run.forget(prefix, but=unit)


def example_margin(
    scores: Float[Tensor, "*checkpoint example k"], design: Design
) -> Float[Tensor, "*checkpoint example"]:
    """How far each test example is on the right side: negative if it is classified wrongly; minus the error of a number."""
    y = design.y_test
    if y.dtype == torch.bool:
        return scores[..., 0] * torch.where(y, 1.0, -1.0)
    if y.is_floating_point():
        return -(scores[..., 0] - y).abs()
    own = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, y.long()[:, None].expand_as(scores[..., :1]), True)
    return scores[own].view(scores.shape[:-1]) - scores.masked_fill(own, -torch.inf).amax(-1)


def choose_examples(
    margin: Float[Tensor, " example"], y: Tensor
) -> tuple[Int[Tensor, " chosen"], Int[Tensor, " wrong"]]:
    """Places of the examples that have rows, and of the most wrong ones among them, the worst first.

    Args:
        margin: At the last checkpoint.
    """
    classes = [torch.arange(len(y))] if y.is_floating_point() else [(y == c).nonzero()[:, 0] for c in y.unique()]
    room = max(1, _EVENLY_SPREAD // len(classes))
    spread = [
        own[torch.linspace(0, len(own) - 1, min(len(own), room), dtype=torch.float64).round().long()] for own in classes
    ]
    order = margin.argsort(stable=True)
    wrong = order[margin[order] < 0][:_MOST_WRONG]
    return torch.cat([*spread, wrong]).unique(), wrong


def example_coords(concept: Concept, index: int) -> dict[str, str]:
    """The number of an example in its concept, its target, and the name of its class."""
    target = concept.examples[index].target
    number = f"{float(target):g}"
    label = concept.classes[int(target)] if concept.classes and concept.kind != "number" else number
    return {"example": str(index), "target": number, "label": label}


def _example_rows(
    run: Run, design: Design, visits: Sequence[MeasuredCheckpoint], best: BestSite, seed: int, *, texts: bool
) -> list[Record | RecordBlock]:
    name = f"{best.method}/{best.part}"
    places = [visit.sites[best.part].index(best.site) for visit in visits]
    scores = torch.stack(
        [run.tensor_rows("scores", v.unit, name, slice(at, at + 1))[0] for v, at in zip(visits, places, strict=True)]
    ).float()
    margin = example_margin(scores, design)
    chosen, wrong = choose_examples(margin[-1], design.y_test)
    ids = [int(design.split.test[place]) for place in chosen]
    labels = [example_coords(design.concept, index) for index in ids]
    context = design.row_context(seed, n=1)
    block = cell_block(
        context,
        cell_places(visits, [[best.site] * len(ids)] * len(visits)),
        _signed_score(scores, margin, design.y_test)[:, chosen].flatten(),
        metric="example_score",
        method=best.method,
        reason=_FAILED,
    )
    coords = {key: [own[key] for own in labels] * len(visits) for key in labels[0]}
    ranks = {int(place): rank for rank, place in enumerate(wrong)}
    errors = []
    if design.concept.kind != "number":
        count = float((margin[-1] < 0).sum())
        errors += stamp_checkpoint(
            [context.row("example_errors", count, best.site, n=margin.shape[1], method=best.method)], visits[-1]
        )
    for place, index, own in zip(chosen.tolist(), ids, labels, strict=True):
        about = dict(own)
        if texts:
            about["text"] = " ".join(design.concept.examples[index].text.split())[:_TEXT_LETTERS]
        if place in ranks:
            about["rank"] = str(ranks[place])
        known = margin[:, place][margin[:, place].isfinite()]
        is_number = design.concept.kind == "number"
        metric = "example_error" if is_number else "example_wrong"
        value = float(-known.mean() if is_number else (known < 0).float().mean())
        errors.append(
            context.row(metric, value, best.site, n=len(known), method=best.method, reason=_FAILED, coords=about)
        )
    return [RecordBlock(block.columns, coords), *errors]


def _signed_score(scores: Tensor, margin: Tensor, y: Tensor) -> Float[Tensor, "checkpoint example"]:
    """The score of two classes, positive for the positive one; the error of a number; of several classes the margin of the own one."""
    if y.dtype == torch.bool:
        return scores[..., 0]
    return scores[..., 0] - y if y.is_floating_point() else margin
