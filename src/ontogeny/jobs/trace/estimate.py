"""Dry run of a trace: bytes, tokens, time and disk. Downloads and writes nothing."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.lineage import Checkpoint
from ontogeny.lineage.fetch import checkpoint_config
from ontogeny.measurements.design import MAX_DEPENDENCE_EXAMPLES, Design
from ontogeny.measurements.settings import CAUSAL_CONTROLS
from ontogeny.models.loading import ModelOptions
from ontogeny.models.shape import ModelShape, model_shape
from ontogeny.models.size import measure_flops_per_second, model_size
from ontogeny.sites import HEAD_PARTS, expand_sites
from ontogeny.storage.run import Run

_CHARACTERS_PER_TOKEN = 4.0
"""Used if the tokenizer is not on this machine."""
_FORWARD_OVERHEAD = 1.3
"""Time of a forward pass, in units of its matrix products (`benchmarks/where.py`)."""
_SECONDS_PER_CALL = 1.5e-5
"""Minimum seconds per token: a small model is bound by the overhead of calls."""
_FIXED_SECONDS = 0.3
"""Minimum seconds per unit, for statistics and files."""
_STATISTICS_FACTOR = 20
"""Operations of the probes and statistics of a layer, in units of (n + min(n, d))² (n + d), at the speed of a matrix product."""
_SECONDS_PER_SCORE = 7.5e-6
"""Seconds of fits, resamples and permutations per example, site and probe, whatever the width; heads are many and narrow."""
_ROWS_BYTES, _ROWS_BYTES_PER_SITE = 8_000, 150
"""Bytes of the records of a unit, and of each of its sites."""


@dataclass(frozen=True)
class TraceEstimate:
    """Cost of a trace. Counts of texts and tokens are per checkpoint."""

    checkpoints: int
    checkpoints_to_visit: int
    units: int
    units_to_do: int
    texts: int
    """Distinct texts, questions included."""
    tokens: int
    tokens_exact: bool
    forwards: int
    """Over all visits."""
    bytes_to_read: int
    bytes_to_download: int
    seconds: float
    disk_bytes: int
    """Size of the files that the trace will add."""
    parameters: int
    device: str
    floor: str
    """The untrained network that scores are compared with: a checkpoint, a random initialisation that is read as well, or none."""
    ablated_answers: int
    """Answers that are scored to see whether ablating a direction makes them worse; 0 without `causal`."""
    read_again: int
    """Checkpoints that are read once more for `planes`."""


def estimate_trace(plan: TracePlan, run: Run, model: ModelOptions | None = None) -> TraceEstimate:
    """Estimate a trace from its plan and the headers of the checkpoints; the speed of the device is measured now."""
    options, settings = model or ModelOptions(), plan.settings
    missing = plan.missing(run)
    texts, tokens, exact = _count_texts(plan, options)
    first = plan.checkpoints[0]
    untrained = [checkpoint.label for checkpoint in plan.checkpoints if plan.is_untrained(checkpoint)]
    floor = settings.untrained and missing and not untrained
    visits = len(missing) + bool(floor)
    size, shape = model_size(first, weights=plan.weights[first].bytes), _shape(first)
    speed = measure_flops_per_second(options.device, ModelOptions(dtype=settings.dtype).torch_dtype)
    reading = tokens * max(_SECONDS_PER_CALL, _FORWARD_OVERHEAD * 2 * size.products / speed)
    ablated = _ablated_answers(plan) if settings.causal else 0
    again = min(settings.planes, len(plan.checkpoints))
    layers, d = (shape.layers or 16) + 1, shape.width or 1024
    sites = expand_sites(settings.sites, layers=shape.layers or 16, heads=shape.heads or 16)
    scores = _SECONDS_PER_SCORE * len(sites) * len(settings.fits)
    measuring = sum(
        _FIXED_SECONDS
        + scores * len(c.examples)
        + _STATISTICS_FACTOR * layers * _statistics_work(plan.designs[c.name], d) / speed
        for c in plan.concepts
    )
    return TraceEstimate(
        checkpoints=len(plan.checkpoints),
        checkpoints_to_visit=len(missing),
        units=len(plan.units),
        units_to_do=sum(map(len, missing.values())),
        texts=texts,
        tokens=tokens,
        tokens_exact=exact,
        forwards=texts * visits,
        bytes_to_read=sum(plan.weights[c].bytes for c in missing),
        bytes_to_download=sum(plan.weights[c].bytes for c in missing if not c.is_local),
        seconds=(reading + measuring) * visits + reading * again + reading / max(texts, 1) * ablated,
        disk_bytes=_disk_bytes(plan, missing, shape),
        parameters=size.parameters,
        device=options.device,
        ablated_answers=ablated,
        read_again=again,
        floor=untrained[0] if untrained else "a random initialisation" if settings.untrained else "none",
    )


def _ablated_answers(plan: TracePlan) -> int:
    """Answers of every concept with questions at the end of each stage: unsteered, ablated, and with each control."""
    stages = len({checkpoint.stage for checkpoint in plan.checkpoints})
    return stages * sum(2 * len(concept.answers) for concept in plan.concepts) * (CAUSAL_CONTROLS + 2)


def _count_texts(plan: TracePlan, options: ModelOptions) -> tuple[int, int, bool]:
    """Number of distinct texts and of their tokens, and whether a tokenizer on this machine counted them."""
    texts = {e.text for c in plan.concepts for e in c.examples}
    texts |= {a.prompt + text for c in plan.concepts for a in c.answers for text in (a.right, a.wrong)}
    first = plan.checkpoints[0]
    tokenizer = options.tokenizer_for(Path(first.source)) if options.tokenizer or first.is_local else None
    if tokenizer and (tokenizer / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        encodings = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).encode_batch(sorted(texts))
        return len(texts), sum(len(encoding.ids) for encoding in encodings), True
    return len(texts), int(sum(map(len, texts)) / _CHARACTERS_PER_TOKEN), False


def _statistics_work(design: Design, d: int) -> int:
    n = min(len(design.split.train), MAX_DEPENDENCE_EXAMPLES)
    return (n + min(n, d)) ** 2 * (n + d)


def _shape(checkpoint: Checkpoint) -> ModelShape:
    try:
        return model_shape(checkpoint_config(checkpoint))
    except BadInput:
        return ModelShape(None, None, None)


def _disk_bytes(plan: TracePlan, missing: Mapping[Checkpoint, list[Concept]], shape: ModelShape) -> int:
    """Bytes of directions, held-out scores and records of the missing units."""
    d, layers, heads = shape.width or 1024, shape.layers or 16, shape.heads or 16
    width = {"neuron": 4 * d, **dict.fromkeys(HEAD_PARTS, d // heads)}
    widths = [width.get(site.part, d) for site in expand_sites(plan.settings.sites, layers=layers, heads=heads)]
    total = 0
    for concept in itertools.chain.from_iterable(missing.values()):
        columns = len(concept.classes) if concept.kind == "classes" else 1
        test = plan.designs[concept.name].split.test
        # LEACE keeps two matrices.
        vectors, scores = (len(plan.settings.fits) + 1) * sum(widths), len(plan.settings.fits) * len(widths) * len(test)
        total += 4 * columns * (vectors + scores) + _ROWS_BYTES + _ROWS_BYTES_PER_SITE * len(widths)
    return total
