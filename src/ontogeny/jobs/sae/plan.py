"""Units and cost of a sparse autoencoder job."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from ontogeny.jobs.resumable import WeightIdentity
from ontogeny.lineage import Checkpoint
from ontogeny.lineage.fetch import checkpoint_config
from ontogeny.models.shape import model_shape
from ontogeny.models.size import measure_flops_per_second, model_size
from ontogeny.sae.plan import TEST_EVERY, SaePlan
from ontogeny.storage.files import content_digest
from ontogeny.storage.run import Run

_SAE_VERSION = 1
_CHARACTERS_PER_TOKEN, _PASSES = 4.0, 2.5
"""Passes of a network over the test texts for each autoencoder, in units of one over the training texts."""


@dataclass(frozen=True)
class SaeEstimate:
    """Cost of a sparse autoencoder job."""

    checkpoints: int
    checkpoints_to_do: int
    autoencoders: int
    texts: int
    tokens: int
    """About so many of training text."""
    seconds: float
    disk_bytes: int


def sae_units(
    readable: Mapping[Checkpoint, WeightIdentity], texts: Sequence[str], settings: SaePlan
) -> dict[Checkpoint, str]:
    """Name of the unit of each checkpoint."""
    key = [_SAE_VERSION, "sae", list(texts), asdict(settings)]
    return {
        c: "sae-" + content_digest([*key, identity.whole, c.stage, c.step, c.name]) for c, identity in readable.items()
    }


def floor_unit(first: WeightIdentity, texts: Sequence[str], settings: SaePlan) -> str:
    """Name of the unit of the untrained network."""
    return "sae-floor-" + content_digest([_SAE_VERSION, list(texts), asdict(settings), first.read_with])


def estimate_sae(
    units: Mapping[Checkpoint, str], texts: Sequence[str], settings: SaePlan, run: Run, weight_bytes: int
) -> SaeEstimate:
    """Estimate a job from the config of its first checkpoint and the speed of this machine; reads no weights."""
    import torch

    first = next(iter(units))
    todo = sum(not run.done(unit) for unit in units.values())
    width = model_shape(checkpoint_config(first)).width or 1024
    tokens = round(
        sum(min(len(text) / _CHARACTERS_PER_TOKEN, settings.most_tokens) for text in texts) * (1 - 1 / TEST_EVERY)
    )
    forward = 2 * model_size(first, weights=weight_bytes).products
    steps = settings.training_steps * settings.batch * sum(12 * width * member.latents for member in settings.members)
    passes = _PASSES * (1 + len(settings.members)) * settings.shared_tokens
    speed = measure_flops_per_second("cpu", torch.float32)
    seconds = (todo + bool(todo)) * (steps + forward * (tokens + passes)) * 1.5 / speed
    weights = sum(2 * width * member.latents * 4 for member in settings.members)
    disk = (todo + bool(todo)) * (weights + 4 * width * settings.shared_tokens)
    return SaeEstimate(len(units), todo, len(settings.members), len(texts), tokens, seconds, disk)
