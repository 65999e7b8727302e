"""Texts: what a reader types, read by the probe of a checkpoint."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from ontogeny.dashboard.endpoints._common import run_of
from ontogeny.dashboard.selection import LensRequest
from ontogeny.dashboard.shown_run import ShownRun

texts_router = APIRouter()


class TextAtCheckpoint(BaseModel):
    """The body of a request that needs no probe."""

    text: str
    stage: str
    step: str


class TextsAtCheckpoint(TextAtCheckpoint):
    """The body of a request about attention."""

    scale: str = "norm"


class TextAtHead(TextsAtCheckpoint):
    """The body of a request about one head."""

    layer: int
    head: int


@texts_router.post("/runs/{run}/texts")
def read_text(shown: Annotated[ShownRun, Depends(run_of)], request: LensRequest) -> dict[str, Any]:
    """Tokens of the text with their scores at one checkpoint; one text at a time for a run, others wait."""
    from ontogeny.dashboard.text_lens import read_typed_text

    return read_typed_text(shown, _models(shown), request)


@texts_router.post("/runs/{run}/attention")
def read_attention(shown: Annotated[ShownRun, Depends(run_of)], typed: TextsAtCheckpoint) -> dict[str, Any]:
    """Queries and keys of every head in a plane, attention and numbers about each head, for some texts at one checkpoint."""
    from ontogeny.dashboard.attention import attention_of_text

    return attention_of_text(shown, _models(shown), typed.text, typed.stage, typed.step, typed.scale)


@texts_router.post("/runs/{run}/attention/map")
def read_attention_map(shown: Annotated[ShownRun, Depends(run_of)], typed: TextAtHead) -> dict[str, Any]:
    """t-SNE of the queries and keys of one head; it takes part of a second to seconds."""
    from ontogeny.dashboard.attention import map_of_head

    at = typed.stage, typed.step, typed.layer, typed.head
    return map_of_head(shown, _models(shown), typed.text, *at, typed.scale)


@texts_router.post("/runs/{run}/lens")
def read_lens(shown: Annotated[ShownRun, Depends(run_of)], typed: TextAtCheckpoint) -> dict[str, Any]:
    """The logit lens: the next token that each layer holds at each token of the text."""
    from ontogeny.dashboard.logit_lens import lens_of_text

    return lens_of_text(_models(shown), typed.text, typed.stage, typed.step)


def _models(shown: ShownRun) -> Any:
    # Torch takes seconds to load, and a first look at a run needs no model.
    from ontogeny.dashboard.checkpoint_models import models_of

    return models_of(shown)
