"""A training process killed by SIGKILL and resumed has the weights and the recording of an uninterrupted run."""

import os
import signal
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.helpers.subprocesses import fork

SCRIPT = """
import torch
from torch import nn
from ontogeny.training.loop import TrainingConfig
from ontogeny.training.recorder import RecordingPlan
from ontogeny.training.train import train_module

torch.set_num_threads(1)

def points(step):
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
    return x, x.square()

def squares(network, batch, reference=None):
    return (network(batch[0]) - batch[1]).square().mean()

def make():
    return nn.Sequential(nn.Linear(4, 32), nn.Dropout(0.1), nn.Tanh(), nn.Linear(32, 4))

train_module(
    points, squares, TrainingConfig(steps=300, warmup=5), OUT, make=make, save_at=range(0, 301, 2),
    record=RecordingPlan(states_every=7),
)
"""


def go(out: Path) -> None:
    exec(SCRIPT, {"OUT": out})


def kill_at(out: Path, step: int) -> None:
    code = f"from pathlib import Path; OUT = Path({str(out)!r})\n{SCRIPT}"
    process = fork(code, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (out / f"checkpoint-{step}").is_dir() and process.ended() is None:
        time.sleep(0.001)
    process.kill()
    assert process.ended() == -signal.SIGKILL, process.said("err")


def test_killed_and_resumed_process_equals_one_run(tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    go(whole)
    kill_at(run, 30)
    assert not (run / "checkpoint-300").exists()
    go(run)
    for step in (0, 30, 120, 250, 300):
        one, other = (load_file(out / f"checkpoint-{step}" / "model.safetensors") for out in (whole, run))
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert (run / "recording/steps.jsonl").read_bytes() == (whole / "recording/steps.jsonl").read_bytes()
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}
