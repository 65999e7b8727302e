"""Inputs of jobs: names, files and data frames in place of lineages and concepts, and a run directory if no folder is given."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ontogeny.data.concept import Concept
from ontogeny.data.open_concept import load_concept
from ontogeny.errors import BadInput
from ontogeny.lineage import Lineage
from ontogeny.models.loading import ModelOptions
from ontogeny.storage.run import Run

if TYPE_CHECKING:
    from ontogeny.data.open_concept import ConceptSource
    from ontogeny.measurements.settings import TraceSettings

    LineageSource = Lineage | str | Path
    """A lineage, a repository on the Hub, a folder of checkpoints, or a lineage.toml."""
    ConceptSources = ConceptSource | Sequence[ConceptSource]
    """One or several of what `load_concept` takes."""


def as_lineage(source: "LineageSource", *, allow_pickle: bool = False) -> Lineage:
    """The lineage at a source.

    Raises:
        BadInput: the source does not exist, or holds no checkpoint.
    """
    return source if isinstance(source, Lineage) else Lineage.open(source, allow_pickle=allow_pickle)


def as_concepts(sources: "ConceptSources") -> list[Concept]:
    """The concepts of one source or several, see `load_concept`.

    Raises:
        BadInput: one of them cannot be opened, or two have the same name.
    """
    several = isinstance(sources, Sequence) and not isinstance(sources, str)
    listed = cast("Sequence[ConceptSource]", sources if several else [sources])
    concepts = [load_concept(one) for one in listed]
    names = [concept.name for concept in concepts]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadInput(
            f"concepts must have different names, got {min(twice)!r} twice: rename one of the files, or give a data frame a name "
            "(load_concept(frame, name=…))."
        )
    return concepts


def output_folder(out: str | Path | None, job: str) -> Path:
    """`out`, or a new temporary folder: in a notebook a run needs no place, until one wants to keep it."""
    return Path(tempfile.mkdtemp(prefix=f"ontogeny-{job}-")) if out is None else Path(out)


def as_run(source: Run | str | Path) -> Run:
    """A run, opened if its folder is given.

    Raises:
        BadInput: the folder is not a run directory.
    """
    return source if isinstance(source, Run) else Run.open(source)


def settings_and_options(
    settings: "TraceSettings | None", model: ModelOptions | None
) -> "tuple[TraceSettings, ModelOptions]":
    """Settings and model options with one data type: that of the settings, or that of the model if there are no settings.

    Raises:
        BadInput: both name a data type, and not the same one.
    """
    from ontogeny.measurements.settings import TraceSettings

    options = model or ModelOptions()
    if settings is None:
        return TraceSettings(dtype=options.dtype), options
    if options.dtype not in (ModelOptions.dtype, settings.dtype):
        raise BadInput(
            f"`dtype` must be the same in `model` and `settings`, got {options.dtype} and {settings.dtype}: set it in `settings`."
        )
    return settings, replace(options, dtype=settings.dtype)
