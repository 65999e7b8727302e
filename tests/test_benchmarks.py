"""The benchmark in small: its counts are held here, since seconds of a shared machine prove nothing; its programs run and agree.

Counts come from `benchmarks/counts.py`, which looks at the job from outside, and are compared with what the run tells of itself.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from benchmarks import workload
from benchmarks.counts import Counts, counting
from ontogeny import Concept, Lineage
from ontogeny.lab.settings import Settings
from ontogeny.lab.trace import trace
from tests.conftest import ROOT

SHAPE, TEXTS, CHECKPOINTS = "tiny", 64, 3
TOKENS_PER_REAL_TOKEN = 1.02
LM_HEAD_CALLS = 0
FORWARDS_PER_TEXT_AND_CHECKPOINT = 1
MODELS_PER_LINEAGE = 1
READS_OF_A_CHECKPOINT = 2.05
"""Its bytes once into the page cache while the one before is computed, and once into the model."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> workload.Work:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workload, "ROOT", tmp_path_factory.mktemp("work"))
        return workload.make(SHAPE, TEXTS, CHECKPOINTS)


@pytest.fixture(scope="module")
def ids(work: workload.Work) -> list[list[int]]:
    told: list[list[int]] = json.loads(work.ids.read_text())["ids"]
    return told


def job(work: workload.Work, ids: list[list[int]], out: Path, steps: int) -> tuple[Counts, list[dict]]:
    """Trace the first `steps` checkpoints; what was counted from outside, and what the run says."""
    lineage = Lineage.open(work.folder).select(f"1..{steps}")
    concept = Concept.from_file(work.texts)
    settings = Settings(untrained=False, permutations=19, resamples=20) if False else Settings(untrained=False)
    with counting(ids, workload.SHAPES[SHAPE].vocab) as counts:
        run = trace(lineage, [concept], out, settings)
    return counts, [line for line in run.ledger() if "forwards" in line]


@pytest.fixture(scope="module")
def jobs(work: workload.Work, ids: list[list[int]], tmp_path_factory: pytest.TempPathFactory):
    """The job on two checkpoints and on all three."""
    out = tmp_path_factory.mktemp("runs")
    return job(work, ids, out / "two", 2), job(work, ids, out / "three", 3)
