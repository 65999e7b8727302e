"""The dry run: what a trace would read and run, and about how long it would take; nothing is downloaded or written."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.lineage import Checkpoint
from ontogeny.lineage.fetch import checkpoint_config
from ontogeny.measurements.design import MAX_DEPENDENCE_EXAMPLES, Design
from ontogeny.models.loading import nearest_tokenizer
from ontogeny.models.size import ModelShape, measure_flops_per_second, model_shape, model_size
from ontogeny.sites import expand_sites
from ontogeny.storage.run import Run

_CHARACTERS_PER_TOKEN = 4.0
"""Rule of thumb for texts whose tokenizer is not on this machine."""
_FORWARD_OVERHEAD = 1.3
"""A pass over its bare products (`benchmarks/where.py`)."""
_SECONDS_PER_CALL = 1.5e-5
"""Seconds below which no token of a small model comes: calls, not products."""
_FIXED_SECONDS = 0.3
"""Seconds a unit costs however small the model is: statistics on a small matrix, and the files."""
_STATISTICS_FACTOR = 20
"""Operations of the fits and statistics of a layer, in units of (n + min(n, d))² (n + d), at the speed of a product."""
_ROWS_BYTES, _ROWS_BYTES_PER_SITE = 8_000, 150
"""Bytes that the rows of a unit take, and what each site adds."""


@dataclass(frozen=True)
class TraceEstimate:
    checkpoints: int
    checkpoints_to_visit: int
    units: int
    units_to_do: int
    texts: int
    """Distinct texts a checkpoint, questions included."""
    tokens: int
    """A checkpoint; exact where the tokenizer is at hand."""
    tokens_exact: bool
    forwards: int
    """Over all checkpoints that are still to be visited."""
    bytes_to_read: int
    bytes_to_download: int
    seconds: float
    disk_bytes: int
    """What the run will add to its folder."""
    parameters: int
    device: str


def estimate_trace(job: TracePlan, run: Run, *, device: str, tokenizer: str | Path | None = None) -> TraceEstimate:
    """Counts from the job and the checkpoints' headers; time from a matrix product measured now on the device."""
    missing = job.missing(run)
    texts, tokens, exact = _count_texts(job, tokenizer)
    visits = len(missing)
    units = sum(map(len, missing.values()))
    extra = 0 if any(map(job.untrained, job.checkpoints)) or not job.settings.untrained or not missing else 1
    first = job.checkpoints[0]
    size, shape = model_size(first, weights=job.bytes[first]), _shape(job)
    speed = measure_flops_per_second(device, getattr(torch, job.settings.dtype))
    reading = tokens * max(_SECONDS_PER_CALL, _FORWARD_OVERHEAD * 2 * size.products / speed)
    layers, d = (shape.layers or 16) + 1, shape.width or 1024
    measuring = sum(
        _FIXED_SECONDS + _STATISTICS_FACTOR * layers * _statistics_work(job.designs[c.name], d) / speed
        for c in job.concepts
    )
    remote = [c for c in missing if not c.is_local]
    return TraceEstimate(
        checkpoints=len(job.checkpoints),
        checkpoints_to_visit=visits,
        units=len(job.units),
        units_to_do=units,
        texts=texts,
        tokens=tokens,
        tokens_exact=exact,
        forwards=texts * (visits + extra),
        bytes_to_read=sum(job.bytes[c] for c in missing),
        bytes_to_download=sum(job.bytes[c] for c in remote),
        seconds=(reading + measuring) * (visits + extra),
        disk_bytes=_disk_bytes(job, missing, shape),
        parameters=size.parameters,
        device=device,
    )


def _count_texts(job: TracePlan, tokenizer: str | Path | None) -> tuple[int, int, bool]:
    """Distinct texts and their tokens; counted by the tokenizer if it is on this machine."""
    every = {e.text for c in job.concepts for e in c.examples}
    every |= {a.prompt + text for c in job.concepts for a in c.answers for text in (a.right, a.wrong)}
    first = job.checkpoints[0]
    place = Path(tokenizer) if tokenizer else nearest_tokenizer(Path(first.source)) if first.is_local else None
    if place and (place / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        codes = Tokenizer.from_file(str(place / "tokenizer.json")).encode_batch(sorted(every))
        return len(every), sum(len(code.ids) for code in codes), True
    return len(every), int(sum(map(len, every)) / _CHARACTERS_PER_TOKEN), False


def _statistics_work(design: Design, d: int) -> int:
    n = min(len(design.split.train), MAX_DEPENDENCE_EXAMPLES)
    return (n + min(n, d)) ** 2 * (n + d)


def _shape(job: TracePlan) -> ModelShape:
    try:
        return model_shape(checkpoint_config(job.checkpoints[0]))
    except BadInput:
        return ModelShape(None, None, None)


def _disk_bytes(job: TracePlan, missing: Mapping[Checkpoint, list[Concept]], shape: ModelShape) -> int:
    """Directions, held-out scores and rows of the units to do."""
    d, layers, heads = shape.width or 1024, shape.layers or 16, shape.heads or 16
    width = {"resid": d, "attn": d, "mlp": d, "head": d // heads, "neuron": 4 * d}
    widths = [width.get(site.part, d) for site in expand_sites(job.settings.sites, layers=layers, heads=heads)]
    total = 0
    for concept in itertools.chain.from_iterable(missing.values()):
        columns = len(concept.classes) if concept.kind == "classes" else 1
        test = job.designs[concept.name].split.test
        # LEACE keeps two matrices; a row of the table takes few bytes once it is packed.
        vectors, scores = (len(job.settings.fits) + 1) * sum(widths), len(job.settings.fits) * len(widths) * len(test)
        total += 4 * columns * (vectors + scores) + _ROWS_BYTES + _ROWS_BYTES_PER_SITE * len(widths)
    return total
