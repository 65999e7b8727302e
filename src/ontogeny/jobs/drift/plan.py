"""Settings and units of a drift job."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ontogeny.data.templates import Template
from ontogeny.dialogues.instructions import DEFAULT_INSTRUCTIONS, Instruction, instructions_named
from ontogeny.dialogues.measure import DriftDesign
from ontogeny.dialogues.mitigations import PLAIN, Mitigation
from ontogeny.dialogues.self_chat import DialogueSettings
from ontogeny.errors import BadInput
from ontogeny.jobs.resumable import WeightIdentity
from ontogeny.lineage import Checkpoint
from ontogeny.storage.files import content_digest

_DRIFT_VERSION = 1


@dataclass(frozen=True)
class DriftSettings:
    """Settings of a drift job; each field enters the names of its units."""

    dialogues: DialogueSettings = field(default_factory=DialogueSettings)
    mitigations: tuple[Mitigation, ...] = (PLAIN,)
    template: Template = True
    """The chat template: each checkpoint's own (a plain one for those without), or a given one."""


def plan_drift(instructions: Sequence[str | Instruction], settings: DriftSettings) -> DriftDesign:
    """The instructions as agents; partners are the same ones, or the default ones for a single instruction.

    Raises:
        BadInput: no instruction, an unknown one, two of one name, or no mitigation.
    """
    agents = [instructions_named([one])[0] if isinstance(one, str) else one for one in instructions]
    names = [one.name for one in agents]
    if not agents or len(set(names)) < len(names):
        raise BadInput(f"`instructions` must be different ones, at least one, got {', '.join(names) or 'none'}.")
    if not settings.mitigations:
        raise BadInput("`mitigations` must name at least one, got none: write plain.")
    partners = agents if len(agents) > 1 else instructions_named(DEFAULT_INSTRUCTIONS)
    return DriftDesign(tuple(agents), tuple(partners), settings.dialogues)


def drift_units(
    checkpoint: Checkpoint, identity: WeightIdentity, design: DriftDesign, settings: DriftSettings, dtype: str
) -> Mapping[Mitigation, str]:
    """Name of the unit of a checkpoint under each mitigation."""
    return {one: _unit(checkpoint, identity, design, settings, one, dtype) for one in settings.mitigations}


def _unit(
    checkpoint: Checkpoint,
    identity: WeightIdentity,
    design: DriftDesign,
    settings: DriftSettings,
    mitigation: Mitigation,
    dtype: str,
) -> str:
    asked: list[Any] = [
        [[one.name, one.system, one.question, one.keywords] for one in group]
        for group in (design.agents, design.partners)
    ]
    place = [checkpoint.stage, checkpoint.step, checkpoint.name]
    how = [asdict(settings.dialogues), asdict(mitigation), settings.template, design.recall_question]
    questions = [asdict(one) for one in design.questions]
    return "drift-" + content_digest([_DRIFT_VERSION, identity.whole, asked, how, questions, place, dtype])
