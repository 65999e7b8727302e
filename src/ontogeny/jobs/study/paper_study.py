"""Protocol of a paper study: a plug-in of `studies/` that trains its own models, with presets, claims and pictures.

A study of the stages of a lineage (`ontogeny compare`) is the other kind in that folder; it has `INPUTS` in place of `PRESETS`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ontogeny.claims.claim import Claim
from ontogeny.errors import BadInput, unknown_name
from ontogeny.plugins import list_plugins, load_plugin, plugin_summary
from ontogeny.records import Record

PRESET_NAMES = ("smoke", "tiny", "small", "paper")
"""smoke: seconds, for tests; tiny: minutes on two cores; small: an hour; paper: the paper's own sizes."""


@dataclass(frozen=True)
class StudyPicture:
    """A picture on the page of a study: curves of some metrics, one colour per condition, mean and range over seeds; or points."""

    title: str
    metrics: tuple[str, ...]
    conditions: tuple[str, ...] = ()
    """Empty: all conditions with such rows."""
    log_y: bool = False
    log_x: bool = False
    caption: str = ""
    x_title: str = "training step"
    points: bool = False
    """Points whose x and y are the two metrics, joined by seed, step and coordinates; with `coords.place` a line through each seed's
    points in this order, in one panel per condition."""
    view: str = ""
    """Name of a view that draws the rows of the metrics; the other fields are for curves and points."""


@dataclass(frozen=True)
class Lab:
    """Everything that a study gets for one seed."""

    study: str
    seed: int
    folder: Path
    """Folder for the checkpoints of this seed. A killed study finds there what it wrote before."""
    on_activity: Callable[[str, int, int], None] = lambda activity, done, total: None
    """Called with an activity, and how much of it is done, of a total."""

    def row(
        self,
        metric: str,
        value: float,
        condition: str,
        *,
        step: int | None = None,
        control: str | None = None,
        n: int = 1,
        low: float = math.nan,
        high: float = math.nan,
        reason: str = "the value is not finite",
        seed: int | None = None,
        **coords: str | int | float,
    ) -> Record:
        """A row of the study: a number under a condition, at a training step if it has one.

        Args:
            control: Name of the null run; None for the measurement itself.
            n: Number of examples behind the number.
            reason: Note of the row if the value is not finite.
            seed: Training seed; that of the lab by default.
        """
        known = math.isfinite(value)
        return Record(
            metric,
            float(value) if known else math.nan,
            lineage=self.study,
            stage=condition,
            step=step,
            train_seed=self.seed if seed is None else seed,
            control=control,
            low=low,
            high=high,
            n=n if known else 0,
            note=None if known else reason,
            coords={key: str(coord) for key, coord in coords.items()},
        )


@dataclass(frozen=True)
class PaperStudy:
    """A loaded study."""

    name: str
    title: str
    """`TITLE`."""
    paper: str
    """`PAPER`: title and arXiv id."""
    question: str
    """First line of the module, without `Study: `."""
    setup: str
    """`SETUP`: what is trained and measured, in a few sentences."""
    differences: tuple[str, ...]
    """`DIFFERENCES`: what differs from the paper."""
    presets: Mapping[str, Any]
    """`PRESETS`: a frozen `Settings` by name."""
    seconds: Mapping[str, float]
    """`SECONDS`: measured seconds per seed on two cores, by preset."""
    run: Callable[[Any, Lab], Iterable[Record]]
    """`run(settings, lab)`: the rows of one seed."""
    claims: Sequence[Claim]
    """`CLAIMS`."""
    pictures: Sequence[StudyPicture]
    """`PICTURES`."""
    challenges: tuple[int, ...]
    """`CHALLENGES`: numbers of the foundational challenges that it speaks to (arXiv:2404.09932)."""
    packages: Mapping[str, str]
    """`PACKAGES`: names of packages beyond those of this one, and the extra that brings each."""
    version: int
    """`VERSION`: raised when the same settings give other numbers; part of every unit key."""

    @property
    def missing_packages(self) -> list[str]:
        """Packages that it needs and that are not installed."""
        return [name for name in self.packages if find_spec(name) is None]

    def settings(self, preset: str, changes: Mapping[str, Any] | None = None) -> Any:
        """Settings of a preset, with changed fields.

        Raises:
            BadInput: unknown preset or field.
        """
        if preset not in self.presets:
            raise unknown_name("preset", preset, self.presets)
        settings = self.presets[preset]
        known = {f.name: getattr(settings, f.name) for f in fields(settings)}
        for name, value in (changes or {}).items():
            if name not in known:
                raise unknown_name(f"setting of the study {self.name}", name, known)
            if not isinstance(value, type(known[name])) and not (isinstance(known[name], float) and value == value):
                raise BadInput(f"the setting {name} must be of type {type(known[name]).__name__}, got {value!r}.")
        return replace(settings, **(changes or {}))


def paper_study_names() -> list[str]:
    """Names of the studies of papers, sorted."""
    return list_plugins("studies", defining="PRESETS")


def load_paper_study(name: str) -> PaperStudy:
    """The study of this name.

    Raises:
        BadInput: unknown name, or a study of the stages of a lineage.
    """
    if name not in paper_study_names():
        if name in list_plugins("studies"):
            raise BadInput(f"the study {name} compares stages of a lineage: run it with `ontogeny compare`.")
        raise unknown_name("study", name, paper_study_names())
    module = load_plugin("studies", name)
    question = plugin_summary("studies", name).removeprefix("Study: ")
    return PaperStudy(
        name,
        module.TITLE,
        module.PAPER,
        question[:1].upper() + question[1:],
        " ".join(module.SETUP.split()),
        tuple(getattr(module, "DIFFERENCES", ())),
        module.PRESETS,
        module.SECONDS,
        module.run,
        module.CLAIMS,
        tuple(getattr(module, "PICTURES", ())),
        tuple(getattr(module, "CHALLENGES", ())),
        getattr(module, "PACKAGES", {}),
        getattr(module, "VERSION", 1),
    )


def settings_as_json(settings: Any) -> dict[str, Any]:
    """Settings as plain values, for unit keys and run.json."""
    if not is_dataclass(settings) or isinstance(settings, type):
        raise BadInput(f"the settings of a study must be a dataclass, got {settings!r}.")
    return asdict(settings)
