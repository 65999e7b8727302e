"""The benchmark in small: counts are held here, since seconds of a shared machine prove nothing; its programs run, and numbers agree.

Counts come from `benchmarks/counts.py`, which looks at the job from outside, and are held against what the run says of itself. What
one more checkpoint costs is the difference of two jobs, so that what is done once a job (checks of the model) drops out.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from benchmarks import workload
from benchmarks.counts import counting
from ontogeny import Concept, Lineage
from ontogeny.jobs.trace.trace import trace
from ontogeny.measurements.settings import TraceSettings
from tests.conftest import ROOT
from tests.helpers.subprocesses import python

SHAPE, TEXTS, CHECKPOINTS = "tiny", 64, 3
TOKENS_PER_REAL_TOKEN = 1.02
LM_HEAD_CALLS = 0
FORWARDS_PER_TEXT_AND_CHECKPOINT = 1
MODELS_PER_LINEAGE = 1
BESIDE = 1000
"""Tokens of validation and of the parity certificate, at most: once a run."""
GATES = {"activations": 5e-6, "dependence": 1e-4, "head accuracy, test items": 1, "mass mean": 1e-5}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> workload.Work:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workload, "ROOT", tmp_path_factory.mktemp("work"))
        return workload.make(SHAPE, TEXTS, CHECKPOINTS)


@pytest.fixture(scope="module")
def ids(work: workload.Work) -> list[list[int]]:
    told: list[list[int]] = json.loads(work.ids.read_text())["ids"]
    return told


@pytest.fixture(scope="module")
def jobs(
    work: workload.Work, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[dict[str, int], list[dict[str, Any]]]]:
    """Counts from outside and the run's own ledger, of a job on two checkpoints and of one on all three."""
    told = []
    # The first job of a process also finds out what this shape of model allows; it is not counted.
    for steps in (1, CHECKPOINTS - 1, CHECKPOINTS):
        lineage = Lineage.open(work.folder).select(f"1-{steps}")
        out = tmp_path_factory.mktemp("runs") / str(steps)
        with counting() as seen:
            run = trace(lineage, [Concept.from_file(work.texts)], out, TraceSettings(untrained=False))
        told.append((seen, [line for line in run.ledger() if "forwards" in line]))
    return told[1:]


def test_one_more_checkpoint_is_one_pass_over_the_texts(jobs: list, ids: list[list[int]]) -> None:
    (two, _), (three, ledger) = jobs
    tokens, real = three["tokens"] - two["tokens"], sum(map(len, ids))
    assert real <= tokens <= TOKENS_PER_REAL_TOKEN * real
    assert [(line["forwards"], line["tokens"], line["real_tokens"]) for line in ledger] == [
        (FORWARDS_PER_TEXT_AND_CHECKPOINT * TEXTS, tokens, real)
    ] * CHECKPOINTS


def test_the_first_block_runs_once_a_word(jobs: list, ids: list[list[int]]) -> None:
    tokens, words = sum(map(len, ids)), len({word for text in ids for word in text})
    assert words < 0.3 * tokens
    for _, ledger in jobs:
        # A word alone in its pass runs twice, for the same last digits.
        assert all(words <= line["first_block_tokens"] <= words + line["batches"] for line in ledger)


def test_no_checks_are_run_per_checkpoint(jobs: list) -> None:
    """What a job runs beside the texts does not grow with the series, and is next to nothing."""
    beside = [seen["tokens"] - sum(line["tokens"] for line in ledger) for seen, ledger in jobs]
    assert 0 < beside[0] == beside[1] <= BESIDE


def test_the_vocabulary_is_never_scored_and_one_model_is_built(jobs: list) -> None:
    for seen, ledger in jobs:
        assert seen["lm_head calls"] == LM_HEAD_CALLS
        assert seen["models"] == MODELS_PER_LINEAGE == sum(line["models_built"] for line in ledger)


def test_a_checkpoint_is_read_once_and_without_its_unembedding(jobs: list, work: workload.Work) -> None:
    (two, _), (three, _) = jobs
    shape = workload.SHAPES[SHAPE]
    file = next(work.checkpoints[-1].glob("*.safetensors")).stat().st_size
    spared = 4 * shape.vocab * shape.d
    # The rest of the file are a few kilobytes of header.
    assert 0.97 * (file - spared) < three["bytes"] - two["bytes"] <= file - spared


def test_a_wasteful_job_would_be_counted(work: workload.Work, ids: list[list[int]]) -> None:
    """The script that everyone writes: a model a checkpoint, `lm_head` on every token, batches that are filled up."""
    logging.disable_progress_bar()
    with counting() as seen, torch.inference_mode():
        for checkpoint in work.checkpoints[:2]:
            network = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
            for start in range(0, TEXTS, 32):
                rows = ids[start : start + 32]
                longest = max(map(len, rows))
                network(torch.tensor([row + [0] * (longest - len(row)) for row in rows]))
    assert seen["models"] == 2
    assert seen["lm_head calls"] == 2 * TEXTS / 32
    assert seen["tokens"] > 1.3 * 2 * sum(map(len, ids))


def told_by(script: str, work: workload.Work, *options: str) -> dict[str, Any]:
    code = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    program = ROOT / "benchmarks/scripts" / script
    done = python(code, program, work.folder, work.ids, *options, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    told: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return told


def test_the_programs_tell_what_they_cost(work: workload.Work, tmp_path: Path) -> None:
    ours = told_by("run_ours.py", work, "--out", str(tmp_path / "run"))
    assert ours["cpu"] > 0
    assert ours["counts"]["forwards_per_text_and_checkpoint"] == FORWARDS_PER_TEXT_AND_CHECKPOINT
    assert told_by("run_limit.py", work)["limit"] < ours["cpu"]
    padded = told_by("run_hf.py", work, "--mode", "padded")
    assert set(padded["stages"]) == {"load", "forward", "fit layers", "fit heads", "mass mean", "hsic", "nhsic"}
    assert sum(padded["stages"].values()) == pytest.approx(padded["cpu"], rel=0.1)


def test_the_numbers_agree_with_their_references(work: workload.Work) -> None:
    gates = told_by("run_parts.py", work)["gates"]
    assert set(gates) == set(GATES)
    for name, largest in GATES.items():
        assert 0 <= gates[name] <= largest, name
