"""Plan of a comparison: stages, studies and units, checked before a model is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import StageStudy, StudyInputs, load_study
from ontogeny.jobs.compare.preflight import PreflightReport, run_preflight
from ontogeny.jobs.compare.stages import weight_identities
from ontogeny.jobs.resumable import open_run_directory, unit_in_run
from ontogeny.lineage import Checkpoint, Lineage, weight_bytes
from ontogeny.models.identity import config_and_tokenizer_digest
from ontogeny.models.loading import ModelOptions
from ontogeny.storage.files import content_digest
from ontogeny.storage.run import Run

COMPARISON_VERSION = 2
"""Increased whenever the same input would give other numbers."""


@dataclass(frozen=True, eq=False)
class ComparisonPlan:
    """Everything a comparison has to do."""

    lineage: Lineage
    checkpoints: Mapping[str, Checkpoint]
    """By name of the stage."""
    inputs: StudyInputs
    studies: Sequence[str]
    options: ModelOptions
    preflight: PreflightReport
    units: Mapping[str, str]
    """By study."""
    earlier_units: Mapping[str, str]
    """The names that the units have in runs of versions that did not compare config and tokenizer."""
    weight_bytes: Mapping[str, int]
    """By name of the stage."""

    def named_as_in(self, run: Run) -> "ComparisonPlan":
        """The plan with the units named as the run holds them; see `TracePlan.named_as_in`."""
        units = {study: unit_in_run(run, unit, self.earlier_units[study]) for study, unit in self.units.items()}
        return replace(self, units=units)

    def missing(self, run: Run) -> list[str]:
        """Studies whose unit the run lacks."""
        units = self.named_as_in(run).units
        return [study for study in self.studies if not run.done(units[study])]

    def open_run(self, out: str | Path) -> Run:
        """The run directory at `out`, which must be a comparison of the same stages if it exists.

        Raises:
            BadInput: it is a trace, or compares other stages, or as `open_run_directory`.
        """
        run = open_run_directory(out, self.lineage)
        if run.exists():
            stages = run.about.get("compare", {}).get("stages")
            if stages is None:
                raise BadInput(f"`out` must hold a comparison, got {out} with a trace: choose another folder.")
            if stages != list(self.checkpoints):
                raise BadInput(f"{out} compares {', '.join(stages)}: keep these stages, or choose another `out`.")
        return run


def plan_comparison(
    lineage: Lineage,
    checkpoints: Mapping[str, Checkpoint],
    inputs: StudyInputs,
    studies: Sequence[str],
    model: ModelOptions | None = None,
) -> ComparisonPlan:
    """Check everything that can be checked before a model is loaded.

    Raises:
        BadInput: there are fewer than two stages, two have the same weights, none has a chat template although its own is asked for, or
            a checkpoint or tokenizer cannot be read.
    """
    options = model or ModelOptions()
    fingerprints = weight_identities(checkpoints, allow_pickle=options.allow_pickle)
    report = run_preflight(
        checkpoints,
        inputs.texts,
        requests=inputs.instructions,
        template=True if inputs.template is None else inputs.template,
        tokenizer=Path(options.tokenizer) if options.tokenizer else None,
        allow_pickle=options.allow_pickle,
    )
    if inputs.template is True and not report.with_chat_template:
        raise BadInput("no stage has a chat template: leave `template` out, or give one.", argument="template")
    if inputs.template is None:
        inputs = replace(inputs, template=bool(report.with_chat_template))
    read_with = {name: config_and_tokenizer_digest(c, options.tokenizer) for name, c in checkpoints.items()}
    places = [[name, c.stage, c.step, c.name, fingerprints[name]] for name, c in checkpoints.items()]
    whole = [[*place, read_with[name]] for name, place in zip(checkpoints, places, strict=True)]
    units, earlier = (
        {study: _unit_key(load_study(study), at, inputs, options.dtype) for study in studies} for at in (whole, places)
    )
    sizes = {name: weight_bytes(c, allow_pickle=options.allow_pickle) for name, c in checkpoints.items()}
    return ComparisonPlan(lineage, checkpoints, inputs, studies, options, report, units, earlier, sizes)


def _unit_key(study: StageStudy, places: list[list[Any]], inputs: StudyInputs, dtype: str) -> str:
    key = [COMPARISON_VERSION, study.unit, places, study.digest(inputs), dtype]
    return f"compare-{study.unit}-{content_digest(key)}"
