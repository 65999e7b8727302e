"""Dry run of a comparison: time, and bytes to read and download."""

from dataclasses import dataclass

from ontogeny.jobs.compare.inputs import StageSizes, load_study
from ontogeny.jobs.compare.plan import ComparisonPlan
from ontogeny.models.size import measure_flops_per_second, model_size
from ontogeny.storage.run import Run

_SECONDS_PER_TOKEN = 2e-5
"""Minimum: a small model is bound by the overhead of calls."""
_READ_BYTES_PER_SECOND = 5e8


@dataclass(frozen=True)
class ComparisonEstimate:
    """Cost of the studies that are still to be done."""

    stages: int
    aspects: dict[str, float]
    """Seconds by study."""
    texts: int
    bytes_to_read: int
    bytes_to_download: int
    seconds: float


def estimate_comparison(plan: ComparisonPlan, run: Run) -> ComparisonEstimate:
    """Estimate a comparison from its inputs and the headers of the checkpoints; the speed of the device is measured now."""
    studies, weights = plan.missing(run), plan.weight_bytes
    products = max(model_size(c, weights=weights[name]).products for name, c in plan.checkpoints.items())
    speed = measure_flops_per_second(plan.options.device, plan.options.torch_dtype)
    blocks = max(int(n) for line in plan.preflight.lines if line.what == "blocks" for n in line.values.values())
    sizes = StageSizes(len(plan.checkpoints), blocks)
    tokens = {study: load_study(study).cost(plan.inputs, sizes) for study in studies}
    seconds = {study: round(n * max(2 * products / speed, _SECONDS_PER_TOKEN), 1) for study, n in tokens.items()}
    reading = sum(weights.values()) if studies else 0
    return ComparisonEstimate(
        len(plan.checkpoints),
        seconds,
        len(plan.inputs.texts),
        reading,
        sum(weights[name] for name, c in plan.checkpoints.items() if not c.is_local) if studies else 0,
        round(sum(seconds.values()) + reading / _READ_BYTES_PER_SECOND, 1),
    )
