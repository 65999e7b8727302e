"""Chat: gauges of a checkpoint, a conversation with it, the same turns at two checkpoints, and the steering bench."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from ontogeny.dashboard.chat_options import ChatOptions
from ontogeny.dashboard.chat_requests import BenchRequest, ChatRequest
from ontogeny.dashboard.endpoints._common import run_of
from ontogeny.dashboard.shown_run import ShownRun

chat_router = APIRouter()


@chat_router.get("/runs/{run}/gauges")
def read_gauges(
    request: Request, shown: Annotated[ShownRun, Depends(run_of)], stage: str = "", step: str = ""
) -> dict[str, Any]:
    """The gauges of a checkpoint with their provenance, and those that are on by default."""
    from ontogeny.dashboard.gauge_cards import gauge_cards

    runs = request.app.state.runs
    return gauge_cards(shown, runs.members.values(), runs.chat, stage, step)


@chat_router.post("/runs/{run}/chat")
def read_chat(request: Request, shown: Annotated[ShownRun, Depends(run_of)], body: ChatRequest) -> dict[str, Any]:
    """The conversation that the user's turns make at one checkpoint; one at a time for a run, others wait."""
    from ontogeny.dashboard.chat import hold_chat

    return hold_chat(shown, _models(shown), _options(request), body)


@chat_router.post("/runs/{run}/chat/difference")
def read_chat_difference(
    request: Request, shown: Annotated[ShownRun, Depends(run_of)], body: ChatRequest
) -> dict[str, Any]:
    """Log-probabilities of the answers of checkpoint A at A and at B, token by token."""
    from ontogeny.dashboard.chat import compare_chats

    return compare_chats(shown, _models(shown), _options(request), body)


@chat_router.post("/runs/{run}/chat/controls")
def read_chat_controls(
    request: Request, shown: Annotated[ShownRun, Depends(run_of)], body: ChatRequest
) -> dict[str, Any]:
    """Two controls of each gauge after the last turn; a forward pass that no turn pays."""
    from ontogeny.dashboard.chat import read_controls

    return read_controls(shown, _models(shown), _options(request), body)


@chat_router.post("/runs/{run}/bench")
def read_bench(request: Request, shown: Annotated[ShownRun, Depends(run_of)], body: BenchRequest) -> dict[str, Any]:
    """One turn under pushes of several lengths, each beside a random direction of equal norm."""
    from ontogeny.dashboard.bench import try_pushes

    return try_pushes(shown, _models(shown), _options(request), body)


@chat_router.get("/runs/{run}/vector")
def read_control_vector(
    request: Request,
    shown: Annotated[ShownRun, Depends(run_of)],
    concept: str,
    stage: str = "",
    step: str = "",
    towards: int = 1,
    site: str = "",
) -> Response:
    """The control vector of a concept as a safetensors file that `load_direction` reads."""
    from ontogeny.dashboard.bench import vector_file

    name, content = vector_file(shown, _options(request), concept, stage, step, towards, site)
    headers = {"content-disposition": f'attachment; filename="{name.encode("ascii", "replace").decode()}"'}
    return Response(content, media_type="application/octet-stream", headers=headers)


def _options(request: Request) -> ChatOptions:
    options: ChatOptions = request.app.state.runs.chat
    return options


def _models(shown: ShownRun) -> Any:
    # Torch takes seconds to load, and a first look at a run needs no model.
    from ontogeny.dashboard.checkpoint_models import models_of

    return models_of(shown)
