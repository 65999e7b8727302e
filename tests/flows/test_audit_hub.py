"""The audit of Hub repositories, against a fake Hub: 154 branches in seconds from less than 1 % of their bytes."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.fake_hub import DECLARED, Hub

SIZE = 20 * 2**20
STEPS = (0, *(2**i for i in range(10)), *range(1000, 144_000, 1000))
"""The 154 branches of Pythia."""
COMMAND = """
    import contextlib, io, time
    from ontogeny.cli import main
    sys.argv = ["ontogeny", "audit", *{argv!r}]
    out, err, code, began = io.StringIO(), io.StringIO(), 0, time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try: main()
        except SystemExit as end: code = end.code
    show([code, out.getvalue(), err.getvalue(), time.perf_counter() - began])
"""


def branch(folder: Path, weights: str, *, size: int = SIZE, **config: object) -> Path:
    """A checkpoint whose weights are a header and a hole in the disk; `weights` stands for their content."""
    folder.mkdir(parents=True)
    rows, tensors = 1024, size // 2**20
    table = {
        f"layers.{i}.weight": {"dtype": "F16", "shape": [rows, 512], "data_offsets": [i * 2**20, (i + 1) * 2**20]}
        for i in range(tensors)
    }
    head = json.dumps({"__metadata__": {"is": weights}, **table}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + tensors * 2**20)
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt_neox", "hidden_size": 512, **config}))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}, "merges": []}}))
    DECLARED[folder / "model.safetensors"] = hashlib.sha256(weights.encode()).hexdigest()
    return folder


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub(tmp_path / "home") as hub:
        yield hub
    DECLARED.clear()


def command(hub: Hub, *argv: str) -> tuple[int, str, str, float]:
    code, out, err, seconds = hub.run(COMMAND.format(argv=list(argv)))
    return code, out, err, seconds


def test_finds_stale_branches_among_154_from_one_percent_of_bytes(hub: Hub, tmp_path: Path) -> None:
    """As EleutherAI/pythia#205: 86 branches serve the weights of the end."""
    stale = set(STEPS[:86])
    for step in STEPS:
        is_ = "the end" if step in stale or step == STEPS[-1] else f"step {step}"
        hub.add("me/pythia", f"step{step}", branch(tmp_path / f"step{step}", is_))
    hub.add("me/pythia", "main", tmp_path / f"step{STEPS[-1]}")
    code, out, err, seconds = command(hub, "me/pythia", "--json")
    assert code == 1, err
    told = json.loads(out)
    [found] = told["findings"]
    assert (found["kind"], found["severity"]) == ("stale", "fault")
    assert found["checkpoints"] == [f"step{step}" for step in STEPS[:86]]
    assert "86 steps" in found["what"]
    assert "of 154 serve the weights of step143000" in found["what"]
    assert told["sentence"] == "154 checkpoints audited: 1 fault on 86 checkpoints, 0 warnings."
    sent = sum(hub.sent.values())
    assert told["read"] == sent
    assert told["bytes"] >= 154 * SIZE
    assert sent < 0.01 * told["bytes"]
    assert seconds < 30


def test_clean_branches_have_no_findings_and_faulty_ones_do(hub: Hub, tmp_path: Path) -> None:
    for step in range(0, 20_000, 1000):
        hub.add("me/clean", f"step{step}", branch(tmp_path / f"{step}", f"step {step}"))
    hub.add("me/clean", "main", tmp_path / "19000")
    code, out, err, _ = command(hub, "me/clean")
    assert (code, out, "Traceback" in err) == (0, "20 checkpoints audited, nothing found.\n", False)
    assert "pretrain 19,000 reading headers" in err
    assert sum(hub.sent.values()) < 0.01 * 20 * SIZE

    hub.add("me/clean", "step3000", branch(tmp_path / "other", "other", rope_theta=7))
    del hub.repositories["me/clean"]["step7000"]
    whole = branch(tmp_path / "cut", "cut") / "model.safetensors"
    with whole.open("r+b") as file:
        file.truncate(whole.stat().st_size - 1000)
    hub.add("me/clean", "step9000", whole.parent)
    code, out, _, _ = command(hub, "me/clean", "--quiet")
    assert code == 1
    for words in ("fault    truncated  step9000:", "fault    config     the configuration", "warning  gap "):
        assert words in out
    assert out.splitlines()[-1] == "19 checkpoints audited: 2 faults on 2 checkpoints, 1 warning."
    told = json.loads(command(hub, "me/clean", "--json")[1])["findings"]
    for finding, words in zip(told, ("is cut off", "rope_theta is 7, not absent", "step 6000 and 8000"), strict=True):
        assert words in finding["what"]


def test_step_equal_to_main_is_stale_without_the_last_step(hub: Hub, tmp_path: Path) -> None:
    for step in (0, 1000, 2000, 3000):
        is_ = "the end" if step in (1000, 3000) else f"step {step}"
        hub.add("me/run", f"step{step}", branch(tmp_path / f"{step}", is_, size=2**20))
    hub.add("me/run", "main", tmp_path / "3000")
    code, out, _, _ = command(hub, "me/run", "--steps", "0,1000,2000", "--json")
    [found] = json.loads(out)["findings"]
    assert (code, found["kind"], found["checkpoints"]) == (1, "stale", ["step1000"])


def test_unopenable_source_is_one_line(hub: Hub) -> None:
    done = hub.run("""
        from ontogeny.jobs.audit.audit import audit
        try: audit(Lineage("empty", ()))
        except BadInput as error: show(str(error))
    """)
    assert done == "empty has no checkpoints: open another source."
    began = time.perf_counter()
    code, out, err, _ = command(hub, "nobody/nothing")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert time.perf_counter() - began < 20
