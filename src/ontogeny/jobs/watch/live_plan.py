"""Plan of one measurement of a model in training: the units that `trace` has for a checkpoint, without or with its folder on disk."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PretrainedConfig

from ontogeny.data.concept import Concept
from ontogeny.jobs.resumable import WeightIdentity, check_concepts, weight_identity
from ontogeny.jobs.trace.plan import TracePlan, unit_key
from ontogeny.lineage import Checkpoint, Lineage, Stage
from ontogeny.measurements.design import Design, make_design
from ontogeny.measurements.settings import TraceSettings
from ontogeny.storage.files import content_digest

_SAMPLED = 1024
"""Numbers of each weight that its fingerprint is made of."""
_NOT_IN_DIGEST = ("_name_or_path", "transformers_version")


@dataclass(frozen=True)
class LiveSubject:
    """The constant parts of all measurements of a training."""

    lineage: str
    """Name of the lineage: that of the folder in which the checkpoints are saved."""
    stage: str
    folder: Path
    """Folder in which the checkpoints are saved as checkpoint-N."""
    concepts: tuple[Concept, ...]
    settings: TraceSettings
    designs: Mapping[str, Design]
    tokenizer: str
    """Fingerprint of the tokenizer."""

    @classmethod
    def of(
        cls,
        concepts: Sequence[Concept],
        settings: TraceSettings,
        *,
        lineage: str,
        stage: str,
        folder: Path,
        tokenizer: str,
    ) -> "LiveSubject":
        """The subject, its concepts checked and split.

        Raises:
            BadInput: there is no concept, or one cannot be split into training and held-out texts.
        """
        check_concepts(concepts)
        designs = {concept.name: make_design(concept, settings) for concept in concepts}
        return cls(lineage, stage, folder, tuple(concepts), settings, designs, tokenizer)

    def checkpoint(self, step: int, tokens: float | None = None) -> Checkpoint:
        """The checkpoint that the training saves, or would save, after a step."""
        return Checkpoint(str(self.folder / f"checkpoint-{step}"), stage=self.stage, step=step, tokens=tokens)

    def plan(self, checkpoint: Checkpoint, network: nn.Module, *, saved: bool) -> TracePlan:
        """The plan of one measurement.

        Args:
            saved: Whether the folder of the checkpoint is complete; its units are then those of a trace of that folder.
        """
        identity = weight_identity(checkpoint) if saved else live_identity(network, self.tokenizer)
        lineage = Lineage(self.lineage, (Stage(self.stage, (checkpoint,)),))
        units = {
            (checkpoint, concept.name): unit_key(checkpoint, identity.whole, concept, self.settings)
            for concept in self.concepts
        }
        return TracePlan(
            lineage, self.concepts, self.settings, {checkpoint: identity}, (), self.designs, units, dict(units)
        )


def live_identity(network: nn.Module, tokenizer: str) -> WeightIdentity:
    """Identity of the weights of a network in memory, from a sample of each weight.

    Args:
        tokenizer: Fingerprint of the tokenizer.
    """
    digest, size = hashlib.sha256(b"in memory"), 0
    for name, parameter in network.named_parameters():
        flat = parameter.detach().reshape(-1)
        stride = max(1, len(flat) // _SAMPLED)
        sample = flat[::stride].float().cpu().contiguous()
        digest.update(f"{name} {parameter.dtype} {list(parameter.shape)}".encode())
        digest.update(sample.view(torch.uint8).numpy().tobytes())
        size += parameter.nbytes
    config: PretrainedConfig = network.config
    described = {key: value for key, value in config.to_dict().items() if key not in _NOT_IN_DIGEST}
    return WeightIdentity(size, f"in memory {digest.hexdigest()}", content_digest([described, tokenizer]))
