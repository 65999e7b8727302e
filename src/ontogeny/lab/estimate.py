"""The dry run: what a trace would read and run, and about how long it would take; nothing is downloaded or written."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ontogeny.lab.job import Job
from ontogeny.lab.shape import shape_of
from ontogeny.lineage.files import read_json
from ontogeny.run import Run
from ontogeny.sites import expand

CHARACTERS_A_TOKEN = 4.0
"""Rule of thumb for texts whose tokenizer is not on this machine."""
STATISTICS = 0.25
"""Share of the forward passes that fits and statistics may cost on a model worth tracing."""
FIXED = 0.4
"""Seconds a unit costs however small the model is: statistics on a small matrix, and the files."""


@dataclass(frozen=True)
class Estimate:
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


def estimate(job: Job, run: Run, *, device: str, tokenizer: str | Path | None = None) -> Estimate:
    """Counts from the job and the checkpoints' headers; time from a matrix product measured now on the device."""
    missing = job.missing(run)
    texts, tokens, exact = _texts(job, tokenizer)
    visits = len(missing)
    units = sum(map(len, missing.values()))
    extra = 0 if any(map(job.untrained, job.checkpoints)) or not job.settings.untrained or not missing else 1
    parameters = max(job.bytes.values()) // 4
    flops = 2 * parameters * tokens
    speed = flops_a_second(device, getattr(torch, job.settings.dtype))
    visiting = flops / speed * (1 + STATISTICS) + FIXED * len(job.concepts)
    remote = [c for c in missing if not c.is_local]
    return Estimate(
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
        seconds=visiting * (visits + extra),
        disk_bytes=_disk(job, units),
        parameters=parameters,
        device=device,
    )


def _texts(job: Job, tokenizer: str | Path | None) -> tuple[int, int, bool]:
    """Distinct texts and their tokens; counted by the tokenizer if it is on this machine."""
    every = {e.text for c in job.concepts for e in c.examples}
    every |= {a.prompt + text for c in job.concepts for a in c.answers for text in (a.right, a.wrong)}
    first = job.checkpoints[0]
    folder = Path(tokenizer) if tokenizer else Path(first.source) if first.is_local else None
    for place in (folder, folder.resolve().parent if folder else None):
        if place and (place / "tokenizer.json").is_file():
            from tokenizers import Tokenizer

            codes = Tokenizer.from_file(str(place / "tokenizer.json")).encode_batch(sorted(every))
            return len(every), sum(len(code.ids) for code in codes), True
    return len(every), int(sum(map(len, every)) / CHARACTERS_A_TOKEN), False


def flops_a_second(device: str, dtype: torch.dtype) -> float:
    """Measured rate of a matrix product of a model's shape, per second."""
    a, b = torch.randn(512, 768, device=device, dtype=dtype), torch.randn(768, 3072, device=device, dtype=dtype)
    (a @ b).sum().item()
    began = time.perf_counter()
    rounds = 10
    for _ in range(rounds):
        c = a @ b
    c.sum().item()
    return 2 * 512 * 768 * 3072 * rounds / (time.perf_counter() - began)


def _disk(job: Job, units: int) -> int:
    """Directions, held-out scores and rows of the units to do, from the sizes in config.json where it is local."""
    first = job.checkpoints[0]
    config = Path(first.source) / "config.json"
    told = shape_of(read_json(config) if first.is_local and config.is_file() else {})
    d, layers, heads = told.width or 1024, told.layers or 16, told.heads or 16
    width = {"resid": d, "attn": d, "mlp": d, "head": d // heads, "neuron": 4 * d}
    fits, test = len(job.settings.fits), 0.3 * sum(len(c.examples) for c in job.concepts) / len(job.concepts)
    numbers = (
        sum(width.get(site.part, d) + test for site in expand(job.settings.sites, layers=layers, heads=heads)) * fits
    )
    return int(units * 4 * numbers * 1.2)
