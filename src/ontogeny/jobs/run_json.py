"""Contents of run.json: everything needed to make a run again, and no secret."""

import functools
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import torch

from ontogeny._version import __version__
from ontogeny.data.concept import Concept
from ontogeny.data.plain_texts import PlainTexts
from ontogeny.data.templates import TEMPLATE_DATE
from ontogeny.errors import redact
from ontogeny.lineage import Checkpoint, Lineage
from ontogeny.storage.run import RUN_FORMAT

EVALUATIONS_FOLDER, TRANSFERS_FOLDER = "evaluations", "transfers"
"""Keys under which `evaluate` and `transfer` describe themselves in the run.json of a trace, which keeps them when it grows."""
_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "numpy", "scikit-learn", "duckdb")


def describe_run(
    lineage: Lineage,
    weight_bytes: Mapping[Checkpoint, int],
    concepts: Iterable[Mapping[str, Any]],
    *,
    settings: Mapping[str, Any],
    device: str,
    command: str | None,
    source: str | None = None,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of run.json at the start of a session.

    Args:
        weight_bytes: The checkpoints that are measured, with the size of their weights.
        concepts: One `describe_concept` each.
        source: By default the repository, or the folder that holds all checkpoints.
        before: The run.json of a run that grows; its other checkpoints and concepts are kept.
    """
    before = before or {"concepts": [], "lineage": {"checkpoints": []}}
    described = {concept["name"]: concept for concept in concepts}
    parents = _parents_of_measured(lineage, before)
    environment = describe_environment(device, command)
    return {
        **{key: environment[key] for key in ("ontogeny", "format", "command")},
        "lineage": {
            "name": lineage.name,
            "source": _common_source(lineage) if source is None else source,
            "stages": list(parents),
            "parents": parents,
            "notes": list(lineage.notes),
            "checkpoints": _describe_checkpoints(weight_bytes, before["lineage"]["checkpoints"], list(parents)),
        },
        "concepts": [c for c in before["concepts"] if c["name"] not in described] + list(described.values()),
        "settings": dict(settings),
        **{key: environment[key] for key in ("device", "versions", "machine")},
        "failures": [],
        "finished": False,
        **{key: before[key] for key in (EVALUATIONS_FOLDER, TRANSFERS_FOLDER) if key in before},
    }


def describe_environment(device: str, command: str | None) -> dict[str, Any]:
    """Version, format of the run, command line, device, packages and machine of this process."""
    return {
        "ontogeny": __version__,
        "format": RUN_FORMAT,
        "command": command,
        "device": device,
        "versions": _versions(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "accelerator": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        },
    }


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


_version = functools.cache(version)
"""Of an installed package, read once: a watched training describes its run at every measurement."""


def _parents_of_measured(lineage: Lineage, before: Mapping[str, Any]) -> dict[str, str | None]:
    """The parent of each stage that is measured now or was before, parents first; a stage without checkpoints is passed over."""
    known: Mapping[str, str | None] = before["lineage"].get("parents") or {}
    whole = {**{name: up for name, up in known.items() if name not in lineage.parents}, **lineage.parents}
    measured = {stage.name for stage in lineage.stages} | {c["stage"] for c in before["lineage"]["checkpoints"]}
    parents = {}
    for name, up in whole.items():
        while up is not None and up not in measured:
            up = whole.get(up)
        if name in measured:
            parents[name] = up
    return parents


def _common_source(lineage: Lineage) -> str:
    sources = sorted({c.source for c in lineage.checkpoints})
    return sources[0] if len(sources) == 1 else os.path.commonpath(sources) or ", ".join(sources)


def _describe_checkpoints(
    weight_bytes: Mapping[Checkpoint, int], before: Iterable[dict[str, Any]], stages: list[str]
) -> list[dict[str, Any]]:
    fields = ("name", "source", "revision", "commit", "stage", "step", "tokens", "train_seed")
    new = [
        {
            **{field: getattr(c, field) for field in fields},
            **{field: value for field in ("subfolder", "off_trajectory") if (value := getattr(c, field))},
            **({} if c.data_share is None else {"data_share": c.data_share}),
            "bytes": size,
        }
        for c, size in weight_bytes.items()
    ]
    places = {(c["stage"], c["name"]) for c in new}
    rank = {name: i for i, name in enumerate(stages)}
    return sorted(
        [*(c for c in before if (c["stage"], c["name"]) not in places), *new],
        key=lambda c: (rank.get(c["stage"], len(rank)), c["step"] is None, c["step"] or 0),
    )


def describe_texts(texts: PlainTexts) -> dict[str, Any]:
    """Texts without labels, as run.json lists them beside concepts."""
    examples = texts.examples
    return {
        **{"name": texts.name, "kind": texts.kind, "classes": [], "n": len(examples)},
        **{"groups": len({example.group for example in examples}), "answers": 0, "position": "all"},
        **dict.fromkeys(("source", "licence", "question")),
        **{"hash": texts.hash, "warnings": []},
    }


def describe_concept(concept: Concept, warnings: Iterable[str] = ()) -> dict[str, Any]:
    """A concept as run.json lists it."""
    template = {"template": concept.template, "template_date": f"{TEMPLATE_DATE:%Y-%m-%d}"} if concept.template else {}
    return {
        "name": concept.name,
        "kind": concept.kind,
        "classes": list(concept.classes),
        "n": len(concept.examples),
        "groups": len({example.group for example in concept.examples}),
        "answers": len(concept.answers),
        "position": str(concept.position),
        "source": concept.source,
        "licence": concept.licence,
        "question": concept.question,
        "hash": concept.hash,
        **template,
        "warnings": list(dict.fromkeys([*warnings, *concept.seam_warnings()])),
    }


def command_line() -> str:
    """The command line of this process, quoted for a shell, without access tokens."""
    return redact(shlex.join(["ontogeny", *sys.argv[1:]]))
