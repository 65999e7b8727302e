"""`ontogeny doctor`: the alerts of a watched training over a finished run."""

from typing import TYPE_CHECKING, Annotated

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._output import print_output
from ontogeny.errors import escape_control

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ontogeny.jobs.watch.doctor import Diagnosis

_COLOURS = {"info": "green", "warning": "yellow", "critical": "red"}


def doctor_command(
    run: arg.RunArgument,
    concept: Annotated[list[str] | None, arg.measure("Concept; repeat. Default: all.", "--concept", "-c")] = None,
    angle: Annotated[float, arg.measure("Degrees by which a direction must turn.")] = 45.0,
    change: Annotated[float, arg.measure("Change of a score that counts as emergence or collapse.")] = 0.1,
    as_json: arg.AsJson = False,
) -> None:
    """Find where in a run a concept emerges, collapses, turns or drifts, and what to look at."""
    from ontogeny.alerts.detection import AlertSettings

    settings = AlertSettings(angle=angle, change=change)

    from ontogeny.alerts.transports import alert_content
    from ontogeny.jobs.watch.doctor import doctor

    found = doctor(run, concept or (), settings=settings)
    content = {
        "sentence": found.sentence,
        "alerts": [alert_content(alert) for alert in found.alerts],
        "notes": list(found.notes),
    }
    print_output(content, _lines(found), as_json=as_json)


def _lines(found: "Diagnosis") -> "Iterator[str]":
    yield found.sentence
    for alert in found.alerts:
        yield f"{typer.style(alert.severity, fg=_COLOURS[alert.severity])}: {escape_control(alert.line)}"
        yield f"    {alert.advice}"
    for note in found.notes:
        yield f"{typer.style('!', fg='yellow')} {escape_control(note)}"
