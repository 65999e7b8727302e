"""A study killed by SIGKILL and started again has the rows of an uninterrupted one, and computes no seed twice."""

import os
import signal
import time
from pathlib import Path

import pandas as pd

from ontogeny.jobs.study.study import plan_study, run_study
from ontogeny.storage.run import Run
from tests.helpers.subprocesses import fork

_CODE = """
import sys
import torch
from ontogeny.jobs.study.study import plan_study, run_study

torch.set_num_threads(1)
run_study(plan_study("swing_by", "smoke", seeds=3, changes={"steps": 60}), sys.argv[1])
"""


def test_killed_and_resumed_study_equals_one_run(tmp_path: Path) -> None:
    plan, run = plan_study("swing_by", "smoke", seeds=3, changes={"steps": 60}), tmp_path / "run"
    process = fork(_CODE, run, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not Run(run).ledger() and process.ended() is None:
        time.sleep(0.001)
    process.kill()
    assert process.ended() == -signal.SIGKILL, process.said("err")
    assert not Run(run).about["finished"]
    before = [line["seed"] for line in Run(run).ledger()]
    resumed, whole = run_study(plan, run), run_study(plan, tmp_path / "whole")
    assert before == [0]
    assert [line["seed"] for line in resumed.ledger()] == [0, 1, 2]
    columns = ["train_seed", "stage", "step", "metric", "control", "value"]
    one, other = (r.records()[columns].sort_values(columns, ignore_index=True) for r in (whole, resumed))
    pd.testing.assert_frame_equal(one, other)
    assert resumed.about["finished"]
    assert not (run / "work").exists()
