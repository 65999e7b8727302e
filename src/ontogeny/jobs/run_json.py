"""run.json: everything that is needed to run a trace again, and nothing that is secret."""

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch

from ontogeny._version import __version__
from ontogeny.data.concept import Concept
from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.storage.run import Run

EVALUATIONS_FOLDER, TRANSFERS_FOLDER = "evaluations", "transfers"
"""What `ontogeny evaluate` and `transfer` asked of a run's concepts; a trace that makes the run grow keeps it."""
REPORTED_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "numpy",
    "scikit-learn",
    "duckdb",
)


def describe_run(
    job: TracePlan, run: Run, *, warnings: Mapping[str, tuple[str, ...]], device: str, command: str | None
) -> dict[str, Any]:
    """What is traced, how and with what; a run that grows keeps the concepts and checkpoints it had."""
    before: dict[str, Any] = run.about if run.about_path.is_file() else {"concepts": [], "lineage": {"checkpoints": []}}
    concepts = [describe_concept(concept, warnings[concept.name]) for concept in job.concepts]
    names = {entry["name"] for entry in concepts}
    kept = [entry for entry in before["concepts"] if entry["name"] not in names]
    return {
        "ontogeny": __version__,
        "command": command,
        "lineage": _describe_lineage(job, before["lineage"]["checkpoints"]),
        "concepts": kept + concepts,
        "settings": asdict(job.settings),
        "device": device,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in REPORTED_PACKAGES}},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "accelerator": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        },
        "failures": [],
        "finished": False,
        **{key: before[key] for key in (EVALUATIONS_FOLDER, TRANSFERS_FOLDER) if key in before},
    }


def _describe_lineage(job: TracePlan, before: list[dict[str, Any]]) -> dict[str, Any]:
    mine = [
        {
            "name": c.name,
            "source": c.source,
            "revision": c.revision,
            "commit": c.commit,
            "stage": c.stage,
            "step": c.step,
            "tokens": c.tokens,
            "train_seed": c.train_seed,
            "bytes": job.bytes[c],
        }
        for c in job.checkpoints
    ]
    ours = {(c["stage"], c["name"]) for c in mine}
    every = [c for c in before if (c["stage"], c["name"]) not in ours] + mine
    stages = {stage.name: stage.parent for stage in job.lineage.stages}
    rank = {name: i for i, name in enumerate(stages)}
    every.sort(key=lambda c: (rank.get(c["stage"], len(rank)), c["step"] is None, c["step"] or 0))
    source = _common_source(sorted({c.source for c in job.lineage.checkpoints}))
    return {
        "name": job.lineage.name,
        "source": source,
        "stages": list(stages),
        "parents": stages,
        "notes": list(job.lineage.notes),
        "checkpoints": every,
    }


def _common_source(sources: list[str]) -> str:
    """The repository, or the folder that holds all checkpoints."""
    return sources[0] if len(sources) == 1 else os.path.commonpath(sources) or ", ".join(sources)


def describe_concept(concept: Concept, warnings: tuple[str, ...]) -> dict[str, Any]:
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
        "warnings": list(warnings),
    }


def command_line() -> str:
    """The command line as a shell would take it again."""
    import shlex

    return shlex.join(["ontogeny", *sys.argv[1:]])
