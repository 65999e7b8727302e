"""Studies as jobs: resumed, divided over shards, refused with a reason; a finished seed is not computed again."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Quantity
from ontogeny.claims.shapes import Separation
from ontogeny.errors import BadInput
from ontogeny.jobs.study import paper_study
from ontogeny.jobs.study.paper_study import Lab, StudyPicture, load_paper_study
from ontogeny.jobs.study.study import claims_table, estimate_study, judge_study, plan_study, run_study
from ontogeny.jobs.trace.shards import Shard
from ontogeny.records import Record


@dataclass(frozen=True)
class Settings:
    steps: int = 3
    gap: float = 1.0


COMPUTED: list[int] = []


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    COMPUTED.append(lab.seed)
    lab.folder.mkdir(parents=True, exist_ok=True)
    (lab.folder / "checkpoint").write_text("x")
    if lab.seed == 2 and (lab.folder.parent.parent / "fail").exists():
        raise KeyboardInterrupt
    for step in range(settings.steps):
        for condition, value in (("large", settings.gap + step), ("small", step)):
            yield lab.row("score", value + lab.seed, condition, step=step)
            yield lab.row("score", step + lab.seed, condition, step=step, control="equal")


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    COMPUTED.clear()
    module = ModuleType("made_up")
    module.__doc__ = "Study: is the large score larger?"
    shape = Separation(Quantity("score", "large"), Quantity("score", "small"))
    module.__dict__.update(
        TITLE="Made up",
        PAPER="arXiv:0000.00000",
        SETUP="Two scores.",
        PRESETS={"smoke": Settings(), "tiny": Settings(5)},
        SECONDS={"smoke": 1, "tiny": 2},
        CLAIMS=(Claim("larger", "The large score is larger.", "arXiv:0000.00000, Fig. 1", "yes", shape, "equal"),),
        PICTURES=(StudyPicture("Scores", ("score",)),),
        run=run,
    )
    monkeypatch.setattr(paper_study, "paper_study_names", lambda: ["made_up"])
    monkeypatch.setattr(paper_study, "load_plugin", lambda _, name: module)
    monkeypatch.setattr(paper_study, "plugin_summary", lambda *_: "Study: is the large score larger?")


def test_second_run_computes_nothing_and_more_seeds_join(tmp_path: Path) -> None:
    first = run_study(plan_study("made_up", "smoke", seeds=2), tmp_path / "run")
    rows = first.records()
    assert COMPUTED == [0, 1]
    run_study(plan_study("made_up", "smoke", seeds=2), tmp_path / "run")
    assert COMPUTED == [0, 1]
    grown = run_study(plan_study("made_up", "smoke", seeds=4), tmp_path / "run")
    assert COMPUTED == [0, 1, 2, 3]
    assert len(grown.records()) == 2 * len(rows)
    assert grown.about["study"]["seeds_in_run"] == [0, 1, 2, 3]
    assert grown.about["finished"]
    assert not (tmp_path / "run/work").exists()
    judged = judge_study(grown)
    assert [j.verdict for j in judged] == ["held"]
    assert claims_table(judged)["effect"][0] == pytest.approx(1.0)


def test_interrupted_study_resumes_at_the_missing_seed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_study(plan_study("made_up", "smoke", seeds=1), out)
    (out / "fail").touch()
    with pytest.raises(KeyboardInterrupt):
        run_study(plan_study("made_up", "smoke", seeds=4), out)
    (out / "fail").unlink()
    COMPUTED.clear()
    run = run_study(plan_study("made_up", "smoke", seeds=4), out)
    assert COMPUTED == [2, 3]
    assert sorted(run.records()["train_seed"].unique()) == [0, 1, 2, 3]


def test_shards_equal_one_process(tmp_path: Path) -> None:
    whole = run_study(plan_study("made_up", "smoke", seeds=5), tmp_path / "whole").records()
    for index in (1, 0):
        parts = run_study(plan_study("made_up", "smoke", seeds=5), tmp_path / "parts", shard=Shard(index, 2))
    columns = ["train_seed", "stage", "step", "metric", "value"]
    assert sorted(whole[columns].values.tolist()) == sorted(parts.records()[columns].values.tolist())
    assert parts.about["finished"]
    assert not (tmp_path / "parts/shards").exists()


def test_estimate_counts_missing_seeds(tmp_path: Path) -> None:
    run_study(plan_study("made_up", "tiny", seeds=2), tmp_path / "run")
    estimate = estimate_study(plan_study("made_up", "tiny", seeds=5), tmp_path / "run")
    assert (estimate.seeds, estimate.seeds_to_do, estimate.seconds, estimate.claims) == (5, 3, 6, 1)


def test_kept_checkpoints_stay(tmp_path: Path) -> None:
    run_study(plan_study("made_up", "smoke", seeds=1), tmp_path / "run", keep_checkpoints=True)
    assert list((tmp_path / "run/work").rglob("checkpoint"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"step": 3}, "setting of the study"), ({"steps": "three"}, "must be of type int")],
)
def test_rejects_bad_settings(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        plan_study("made_up", "smoke", changes=changes)


def test_rejects_unknown_names_and_other_runs(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="preset"):
        plan_study("made_up", "huge")
    with pytest.raises(BadInput, match="study"):
        load_paper_study("unheard_of")
    with pytest.raises(BadInput, match="compares stages"):
        load_paper_study("refusal")
    with pytest.raises(BadInput, match="seeds"):
        plan_study("made_up", "smoke", seeds=0)
    run_study(plan_study("made_up", "smoke", seeds=1), tmp_path / "run")
    with pytest.raises(BadInput, match="same settings"):
        run_study(plan_study("made_up", "smoke", seeds=1, changes={"gap": 2.0}), tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/run.json").write_text(json.dumps({"lineage": {"name": "x"}, "concepts": []}))
    with pytest.raises(BadInput, match="run of a study"):
        run_study(plan_study("made_up", "smoke", seeds=1), tmp_path / "other")
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="run directory"):
        run_study(plan_study("made_up", "smoke", seeds=1), tmp_path / "file")
