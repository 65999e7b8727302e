"""Simulated trainings whose truth is known, measured, kept and read as those of a watched training: false alarms and delays of alerts.

An activation is a fixed vector per text, noise that changes slowly over the checkpoints, and the concept along one direction. In a null
run nothing happens; in a planted one something begins at one checkpoint.
"""

import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ontogeny.activations.activations import Activations
from ontogeny.alerts.detection import Alert, AlertSettings, find_alerts
from ontogeny.alerts.series import SeriesReader
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.jobs.trace.frozen import FrozenProbes
from ontogeny.measurements.design import make_design
from ontogeny.measurements.measure import measure_concept
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.measurements.settings import TraceSettings
from ontogeny.sites import Site
from ontogeny.storage.run import Run

SETTINGS = TraceSettings(
    sites="resid", fits=("logistic", "mass_mean"), kernels=("linear",), resamples=200, permutations=100
)
NULL_RUNS = ("no concept", "weak concept", "readable throughout", "strong throughout", "turning slowly")
PLANTED_RUNS = {"emerges": "emerges", "collapses": "collapses", "turns": "turns", "drifts": "drifts"}
_SITES = (Site("resid", 1), Site("resid", 2))
_NOISE, _MEMORY = 0.5, 0.7
"""Standard deviation of the noise that changes, in that of the fixed vectors, and how much of it is kept to the next checkpoint."""


@dataclass(frozen=True)
class SimulatedRun:
    """The alerts of one run."""

    alerts: Sequence[Alert]
    checkpoints: int
    event: int
    """Checkpoint at which something begins."""

    def delay(self, kind: str) -> float:
        """Checkpoints from the event to the first alert of a kind after it; infinite without one."""
        places = [place for place in (int(a.checkpoint) for a in self.alerts if a.kind == kind) if place >= self.event]
        return min(places, default=math.inf) - self.event


def concept(groups: int) -> Concept:
    """Two texts a group, both classes alike."""
    examples = [Example(f"text {g} {i}", bool(g % 2), group=f"g{g}") for g in range(groups) for i in range(2)]
    return Concept("coin", tuple(examples))


def simulate(
    kind: str, seed: int, *, checkpoints: int = 30, groups: int = 40, width: int = 16, sites: int = 2
) -> SimulatedRun:
    """One run: what is planted begins at its middle and takes two checkpoints."""
    generator = torch.Generator().manual_seed(seed)
    coin, event = concept(groups), checkpoints // 2
    design = make_design(coin, SETTINGS)
    signs = coin.labels().float() * 2 - 1
    n = len(signs)
    fixed = torch.randn(sites, n, width, generator=generator)
    noise = torch.randn(sites, n, width, generator=generator)
    first, second = torch.linalg.qr(torch.randn(width, 2, generator=generator))[0].T
    frozen = FrozenProbes()
    with tempfile.TemporaryDirectory() as home:
        run = Run(Path(home) / "run")
        run.describe(
            {
                "lineage": {"name": "simulated", "parents": {"pretrain": None}},
                "concepts": [{"name": "coin"}],
                "settings": {},
            }
        )
        for at in range(checkpoints):
            fresh = torch.randn(sites, n, width, generator=generator)
            noise = _MEMORY * noise + math.sqrt(1 - _MEMORY**2) * fresh
            x = (fixed + _NOISE * noise) / math.hypot(1, _NOISE)
            strength, angle, scale = _truth(kind, at, event, checkpoints)
            direction = math.cos(angle) * first + math.sin(angle) * second
            x = scale * (x + strength * signs[:, None] * direction)
            _keep(run, design, x, at, checkpoints, frozen)
        (series,) = SeriesReader(run).read()
        return SimulatedRun(find_alerts(series, AlertSettings()), checkpoints, event)


def _truth(kind: str, at: int, event: int, checkpoints: int) -> tuple[float, float, float]:
    """Strength of the concept, angle of its direction, scale of the activations."""
    passed = min(max((at - event + 1) / 2, 0.0), 1.0)
    return {
        "no concept": (0.0, 0.0, 1.0),
        "weak concept": (0.35, 0.0, 1.0),
        "readable throughout": (0.8, 0.0, 1.0),
        "strong throughout": (1.6, 0.0, 1.0),
        "turning slowly": (1.2, math.radians(20) * at / checkpoints, 1.0),
        "emerges": (1.2 * passed, 0.0, 1.0),
        "collapses": (1.2 * (1 - passed), 0.0, 1.0),
        "turns": (1.2, math.radians(90) * passed, 1.0),
        "drifts": (1.2, 0.0, 1 - 0.75 * passed),
    }[kind]


def _keep(run: Run, design: object, x: Tensor, at: int, checkpoints: int, frozen: FrozenProbes) -> None:
    activations = Activations(parts={"resid": x}, sites={"resid": _SITES[: len(x)]}, inputs=x[0], margin=None)
    measured = measure_concept(design, activations.parts, activations.sites, activations.inputs, SETTINGS)
    step, name = 2**at, f"{at}"
    stamp = CheckpointStamp("simulated", f"unit{at}", "pretrain", step, None, name, None)
    header = {
        "checkpoint": name,
        "stage": "pretrain",
        "step": step,
        "tokens": None,
        "revision": name,
        "train_seed": None,
        "order": step,
        "untrained": False,
        **measured.header,
    }
    rows = stamp.on(measured.records)
    run.keep(stamp.unit, rows, header=header, directions=measured.directions, scores=measured.scores)
    frozen.keep(run, design, activations, measured, stamp, header)


def false_alarms(runs: int, **size: int) -> dict[str, tuple[int, int, Counter[str]]]:
    """By kind of null run: alarms, checkpoints, and alarms by kind."""
    found = {}
    for kind in NULL_RUNS:
        done = [simulate(kind, seed, **size) for seed in range(runs)]
        kinds = Counter(alert.kind for one in done for alert in one.alerts)
        found[kind] = sum(kinds.values()), sum(one.checkpoints for one in done), kinds
    return found


def delays(runs: int, **size: int) -> dict[str, list[float]]:
    """By kind of planted run, the checkpoints from the event to its alert."""
    return {
        kind: [simulate(kind, 100 + seed, **size).delay(alert) for seed in range(runs)]
        for kind, alert in PLANTED_RUNS.items()
    }


def alarm_table(runs: int = 20) -> str:
    """False alarms of null runs, and delays of planted ones."""
    lines = ["| nothing happens | runs | checkpoints | false alarms | in 100 checkpoints |", "|---|---|---|---|---|"]
    for kind, (alarms, checkpoints, kinds) in false_alarms(runs).items():
        named = f" ({', '.join(f'{n} {name}' for name, n in sorted(kinds.items()))})" if kinds else ""
        lines.append(f"| {kind} | {runs} | {checkpoints} | {alarms}{named} | {100 * alarms / checkpoints:.2f} |")
    lines += ["", "| planted at the middle | runs | found | delay in checkpoints, median (most) |", "|---|---|---|---|"]
    for kind, each in delays(runs).items():
        known = sorted(value for value in each if math.isfinite(value))
        middle = f"{known[len(known) // 2]:.0f} ({known[-1]:.0f})" if known else "–"
        lines.append(f"| {kind} | {runs} | {len(known)} | {middle} |")
    return "\n".join(lines)
