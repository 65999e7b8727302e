"""Selection: what all panels of the dashboard show, and its form in the address of the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlencode

from ontogeny.findings.finding import PREFERRED_PROBES, SCORE_METRICS

_PARTS = ("resid", "attn", "mlp", "head")


@dataclass(frozen=True)
class Selection:
    """One choice of run, checkpoints, concept and site; "" where there is none."""

    run: str = ""
    stage: str = ""
    step: str = ""
    """Step of checkpoint A; with a half, the end of its stage."""
    other_stage: str = ""
    other_step: str = ""
    """Step of checkpoint B; "" if only A is shown."""
    concept: str = ""
    """"" for all concepts."""
    metric: str = ""
    part: str = ""
    """Part of a block: resid, attn, head, …"""
    method: str = ""
    """Probe or kernel; "" for the one that the findings use."""
    panel: str = "atlas"
    text: str = ""
    chat: str = ""
    """Turns, gauges and pins of the chat, as JSON of the page."""
    bench: str = ""
    """Likewise the turn and the pushes of the steering bench."""

    @classmethod
    def from_query(cls, query: Mapping[str, str], described: Mapping[str, Any]) -> "Selection":
        """The selection of an address; whatever the run does not have is replaced by its default.

        Args:
            query: The parameters of the address.
            described: `ShownRun.describe` of its run.
        """
        known = {field.name for field in fields(cls)}
        given = cls(**{name: value for name, value in query.items() if name in known})
        return given.fitted(described)

    def fitted(self, described: Mapping[str, Any]) -> "Selection":
        """The same selection in a run, with defaults for what the run does not have."""
        moments = described["checkpoints"]
        metric = self.metric if self.metric in described["metrics"] else _first(SCORE_METRICS, described["metrics"])
        parts = described["metrics"].get(metric, {})
        part = self.part if self.part in parts else _first(_PARTS, parts)
        methods = parts.get(part, [])
        stage, step = _checkpoint(self.stage, self.step, moments) or _last(moments)
        other = _checkpoint(self.other_stage, self.other_step, moments)
        return Selection(
            run=described["name"],
            stage=stage,
            step=step,
            other_stage=other[0] if other else "",
            other_step=other[1] if other else "",
            concept=self.concept if self.concept in described["concepts"] else "",
            metric=metric,
            part=part,
            method=self.method if self.method in methods else probe_of(methods),
            panel=self.panel,
            text=self.text,
            chat=self.chat,
            bench=self.bench,
        )

    def query(self, **more: str) -> str:
        """Its parameters in an address; those that are empty are left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)} | more
        return urlencode({name: value for name, value in values.items() if value != ""})


def probe_of(methods: Sequence[str]) -> str:
    """The probe that the findings use, or the first kernel; "" without any."""
    return next((name for name in (*PREFERRED_PROBES, *methods) if name in methods), "")


def step_text(step: float) -> str:
    """A step as an address has it."""
    return f"{step:g}" if step % 1 else str(int(step))


def _first(preferred: Sequence[str], known: Mapping[str, Any]) -> str:
    return next((name for name in (*preferred, *known) if name in known), "")


def _checkpoint(stage: str, step: str, moments: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    known = [(m["stage"], step_text(m["step"])) for m in moments]
    return (stage, step) if (stage, step) in known else None


def _last(moments: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    return (moments[-1]["stage"], step_text(moments[-1]["step"])) if moments else ("", "")


@dataclass(frozen=True)
class LensRequest:
    """A reading: a text, by the probe of a concept at one checkpoint."""

    text: str
    concept: str
    stage: str
    step: str
    site: str = ""
    """A site; "" for the best one of the concept."""
    method: str = ""
    """A probe; "" for the one that the findings use."""
