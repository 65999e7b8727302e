"""Steering bench: one turn under pushes of several lengths, each beside a random direction of equal norm, and the vector as a file."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ontogeny.dashboard.chat import hold_chat
from ontogeny.dashboard.chat_options import ChatOptions
from ontogeny.dashboard.chat_requests import BenchRequest, ChatRequest
from ontogeny.dashboard.checkpoint_models import CheckpointModels
from ontogeny.dashboard.gauge_cards import gauges_of, pinned_vector
from ontogeny.dashboard.shown_run import ShownRun
from ontogeny.errors import BadInput
from ontogeny.gauges.pin import Pin
from ontogeny.storage.directions import save_direction

_MOST_PUSHES = 12


def try_pushes(
    shown: ShownRun, models: CheckpointModels, options: ChatOptions, request: BenchRequest
) -> dict[str, Any]:
    """The answer to one turn under each push and under its random twin, with KL and cross-entropy, and under a held projection.

    Raises:
        BadInput: no pushes or too many, or what a chat does not allow.
    """
    if not 1 <= len(request.gaps) <= _MOST_PUSHES:
        raise BadInput(f"`gaps` must hold 1 to {_MOST_PUSHES} numbers, got {len(request.gaps)}: change them.")
    chat = ChatRequest((request.text,), request.stage, request.step, tokens=request.tokens)
    held = Pin(request.concept, request.towards, hold=True, site=request.site)
    pins = [*(replace(held, gaps=gaps, hold=False) for gaps in request.gaps), held]
    rows, site = [], ""
    for pin in pins:
        answer = hold_chat(shown, models, options, replace(chat, pins=(pin,)))
        arms = {arm["name"]: arm["turns"][0] for arm in answer["arms"]}
        (site,) = answer["pin_sites"]
        rows.append({"gaps": None if pin.hold else pin.gaps, **arms})
    return {"rows": rows, "site": site}


def vector_file(
    shown: ShownRun, options: ChatOptions, concept: str, stage: str, step: str, towards: int, site: str
) -> tuple[str, bytes]:
    """Name and content of a file of `save_direction` with a concept's control vector, as long as the distance of the class means.

    Raises:
        BadInput: the concept is not readable at the checkpoint, or lacks the class or the site.
    """
    (gauge,) = gauges_of(shown, options, [concept], stage, step, argument="concept")
    direction = pinned_vector(shown, options, gauge, towards, site).direction.scaled("gap")
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{concept}-{stage}-{step}-{direction.site}")
    with TemporaryDirectory() as folder:
        return f"{name}.safetensors", save_direction(direction, Path(folder) / "vector.safetensors").read_bytes()
