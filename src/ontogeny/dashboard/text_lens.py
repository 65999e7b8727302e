"""Text lens: a text that a reader types, scored token by token by the probe of any checkpoint of a run.

One model is in memory, refilled for each checkpoint. A reading is kept under the fingerprint of the weights, so that weights
which have changed under the same name are read anew.
"""

from typing import Any

from ontogeny.dashboard.checkpoint_models import CheckpointModels
from ontogeny.dashboard.selection import LensRequest, step_text
from ontogeny.dashboard.shown_run import ShownRun
from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint, measured_checkpoints
from ontogeny.errors import BadInput, unknown_name
from ontogeny.jobs.reading import probe_in_run
from ontogeny.measurements.token_scores import read

MOST_LETTERS = 4000
"""Maximum length of a text."""


def read_typed_text(shown: ShownRun, models: CheckpointModels, request: LensRequest) -> dict[str, Any]:
    """Tokens of a text and their scores, the site, the probe, and the position at which the probe was fitted.

    Raises:
        BadInput: the run lacks the concept, checkpoint, site or probe, the text is empty or too long, or its model cannot be read.
    """
    if len(request.text) > MOST_LETTERS:
        raise BadInput(f"`text` must have at most {MOST_LETTERS:,} letters, got {len(request.text):,}: shorten it.")
    run = shown.run
    visits = measured_checkpoints(run, request.concept)
    if not visits and not run.headers():
        raise BadInput(
            "this run keeps no directions, so that no probe can read a text: open a run of `ontogeny trace`."
        )
    if not visits:
        raise unknown_name("traced concept", request.concept, shown.describe()["concepts"])
    visit = _visit_at(visits, request.stage, request.step)
    method = request.method or next(m for m in ("logistic", *visit.methods) if m in visit.methods)
    site = run.direction(request.concept, site=request.site or None, method=method).site
    reading = models.computed(
        models.at(visit.stage or "", request.step),
        ("text", visit.unit, str(site), method, request.text),
        lambda model: read(model, probe_in_run(run, request.concept, visit, site, method), request.text),
    )
    return {
        "tokens": list(reading.tokens),
        "scores": [float(f"{score:.5g}") for score in reading.scores[0].tolist()],
        "site": str(site),
        "method": method,
        "position": str(run.headers()[visit.unit].get("position", "")),
    }


def _visit_at(visits: list[MeasuredCheckpoint], stage: str, step: str) -> MeasuredCheckpoint:
    """The measured checkpoint at a place of the time axis, where one without a step is the end of its stage."""
    for visit in visits:
        at_end = visit.step is None and "." in step
        if (visit.stage or "") == stage and (at_end or (visit.step is not None and step_text(visit.step) == step)):
            return visit
    raise BadInput(f"the concept was not traced at {stage} {step}: choose another checkpoint.")
