"""Following a folder: complete checkpoints only, rotation, restarts, alerts once, and the same rows as one trace."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import ontogeny as on
from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.watch import follow as following
from ontogeny.jobs.watch.arrivals import FolderLook, pin
from ontogeny.jobs.watch.follow import FollowedRun, FollowOptions, follow
from tests.helpers.planted_lineages import save_run
from tests.helpers.watched_trainings import LIGHT, concept

BARE = replace(LIGHT, untrained=False)
PUSHES = {1: 0.0, 2: 6.0, 4: 8.0}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints of a Trainer; the concept is there from the second on."""
    folder = save_run(tmp_path_factory.mktemp("source") / "out", PUSHES)
    for step in PUSHES:
        (folder / f"checkpoint-{step}/trainer_state.json").write_text(json.dumps({"global_step": step}))
    return folder


class Training:
    """A training that does one thing each time the follower waits."""

    def __init__(self, source: Path, out: Path) -> None:
        self.source, self.out = source, out
        self.acts: list[Any] = []
        out.mkdir()
        for path in source.iterdir():
            if path.is_file():
                shutil.copy(path, out / path.name)

    def save(self, step: int, *, without: str = "") -> None:
        shutil.copytree(self.source / f"checkpoint-{step}", self.out / f"checkpoint-{step}", dirs_exist_ok=True)
        if without:
            (self.out / f"checkpoint-{step}" / without).unlink()

    def delete(self, step: int) -> None:
        shutil.rmtree(self.out / f"checkpoint-{step}")

    def sleep(self, _: float) -> None:
        if self.acts:
            self.acts.pop(0)()


def end_after(looks: int) -> Iterator[float]:
    """A clock that stands still for so many looks, and is then far ahead."""
    yield from [0.0] * looks
    while True:
        yield 1e9


def watch(training: Training, run: Path, coin: Concept, *, looks: int = 12, **more: Any) -> FollowedRun:
    ticks = end_after(looks)
    options = FollowOptions(patience=100, **more)
    steps = follow([training.out], [coin], run, BARE, options=options, sleep=training.sleep, clock=lambda: next(ticks))
    *_, last = ([*runs] for runs in steps)
    return last[0]


def test_followed_run_equals_a_trace_and_survives_rotation_and_a_restart(source: Path, tmp_path: Path) -> None:
    coin, training = concept(tmp_path, characters=24), Training(source, tmp_path / "out")
    given: list[Any] = []
    training.acts = [
        lambda: training.save(1, without="trainer_state.json"),
        lambda: None,
        lambda: training.save(1),
        lambda: None,
        lambda: training.save(2),
        lambda: None,
    ]
    first = watch(training, tmp_path / "run", coin, sinks=[given.append])
    assert first.done == {"checkpoint-1", "checkpoint-2"}
    assert first.failures == []
    assert not list(tmp_path.glob(".run.pinned/*"))
    training.delete(1)  # rotated away after it was traced: nothing is lost
    training.acts = [lambda: training.save(4), lambda: None]
    second = watch(training, tmp_path / "run", coin, sinks=[given.append])
    assert second.failures == []
    run = on.open_run(tmp_path / "run")
    assert [line["checkpoint"] for line in run.ledger()] == [f"checkpoint-{step}" for step in PUSHES]
    assert {c["source"] for c in run.about["lineage"]["checkpoints"]} == {
        str(training.out / f"checkpoint-{step}") for step in PUSHES
    }
    whole = on.trace(source, [coin], tmp_path / "whole", BARE)
    question = (
        "select stage, step, site, metric, method, control, value, low, high from records "
        "where metric in ('auroc', 'cv_score', 'emergence_step') order by all"
    )
    assert len(run.query(question)) > 20
    assert run.query(question).equals(whole.query(question))
    frozen = run.records(metric="frozen_probe_auroc")
    assert set(frozen["step"]) == {2, 4}
    assert {dict(coords)["source_step"] for coords in frozen["coords"]} == {"2"}


def test_a_checkpoint_that_rotates_away_is_a_row_with_its_reason(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coin, training = concept(tmp_path, characters=24), Training(source, tmp_path / "out")
    real = following.trace

    def trace(lineage: Any, *args: Any, **more: Any) -> Any:
        if lineage.checkpoints[0].name == "checkpoint-2":  # deleted while it is read, where it could not be linked
            training.delete(2)
        return real(lineage, *args, **more)

    monkeypatch.setattr(following, "trace", trace)
    monkeypatch.setattr(following, "pin", lambda checkpoints, place: {c.name: c for c in checkpoints})
    training.acts = [
        lambda: training.save(1),
        lambda: None,
        lambda: training.save(2),
        lambda: None,
        lambda: training.save(4, without="trainer_state.json"),
        lambda: training.delete(4),
    ]
    followed = watch(training, tmp_path / "run", coin)
    assert {failure.checkpoint for failure in followed.failures} == {"checkpoint-2", "checkpoint-4"}
    run = on.open_run(tmp_path / "run")
    rows = run.records(metric="not_traced")
    assert set(rows["step"]) == {2, 4}
    assert (rows["n"] == 0).all()
    assert rows["note"].str.contains("save_total_limit").all()
    assert {failure.checkpoint for failure in run.failures} == {"checkpoint-2", "checkpoint-4"}
    assert on.doctor(run).checkpoints == 1


def test_a_diverged_checkpoint_is_a_row_and_is_not_tried_again(source: Path, tmp_path: Path) -> None:
    coin, training = concept(tmp_path, characters=24), Training(source, tmp_path / "out")

    def diverge() -> None:
        training.save(2)
        path = training.out / "checkpoint-2/model.safetensors"
        tensors = load_file(path)
        tensors[min(tensors)][:] = float("nan")
        save_file(tensors, path, {"format": "pt"})

    training.acts = [lambda: training.save(1), lambda: None, diverge, lambda: None, lambda: None]
    followed = watch(training, tmp_path / "run", coin)
    assert followed.done == {"checkpoint-1"}
    assert [failure.checkpoint for failure in followed.failures] == ["checkpoint-2"]
    run = on.open_run(tmp_path / "run")
    assert len(run.records(metric="not_traced")) == 1
    assert len([line for line in run.ledger() if line.get("checkpoint") == "checkpoint-2"]) == 1
    training.acts = [lambda: training.save(2), lambda: None]
    assert watch(training, tmp_path / "run", coin).failures == []
    assert run.records(metric="not_traced").empty


def test_only_files_that_stand_still_are_complete(source: Path, tmp_path: Path) -> None:
    training = Training(source, tmp_path / "out")
    look = FolderLook(training.out, "pretrain")
    training.save(1)
    look.look()
    assert look.pending == {"checkpoint-1": "its files are still changing"}
    look.look()
    assert list(look.ready) == ["checkpoint-1"]
    weights = training.out / "checkpoint-1/model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    look.look()
    assert "cut off" in look.pending["checkpoint-1"]
    weights.write_bytes(content)
    (training.out / "checkpoint-1/trainer_state.json").write_text('{"global_step"')
    look.look()
    assert "trainer_state.json cannot be read" in look.pending["checkpoint-1"]
    training.delete(1)
    look.look()
    assert [c.name for c in look.gone] == ["checkpoint-1"]


def test_links_keep_a_checkpoint_that_is_deleted(source: Path, tmp_path: Path) -> None:
    training = Training(source, tmp_path / "out")
    training.save(2)
    look = FolderLook(training.out, "pretrain")
    look.look()
    pinned = pin(look.seen.values(), tmp_path / "pinned")
    training.delete(2)
    model = on.load_model(pinned["checkpoint-2"])
    assert model.layers == 2


def test_folders_that_never_fill_are_clear_lines(source: Path, tmp_path: Path) -> None:
    coin = concept(tmp_path, characters=24)

    def once(folder: Path) -> None:
        list(follow([folder], [coin], tmp_path / "run", BARE, options=FollowOptions(once=True), sleep=lambda _: None))

    with pytest.raises(BadInput, match="there is no folder"):
        once(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="has no checkpoint-N folder"):
        once(tmp_path / "empty")
    (tmp_path / "half").mkdir()
    training = Training(source, tmp_path / "half/out")
    training.save(1, without="model.safetensors")
    with pytest.raises(BadInput, match=r"has no complete checkpoint; checkpoint-1: .* has no weights"):
        once(training.out)
    with pytest.raises(BadInput, match="must be folders of checkpoints, got the file"):
        once(tmp_path / "coin.csv")
    with pytest.raises(BadInput, match="must have different names, got out twice"):
        list(follow([training.out, source], [coin], tmp_path / "run", BARE))
    for options in ({"interval": 0}, {"patience": 0}):
        with pytest.raises(BadInput, match="must be above 0 seconds"):
            FollowOptions(**options)
    assert not (tmp_path / "run").exists()
