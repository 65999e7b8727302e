"""A Hub that fails: what is gone in a moment is waited out, what stays is one checkpoint's fault, and the others go on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.test_trace_hub import commands
from tests.helpers.fake_hub import Hub, Trouble, commit
from tests.helpers.planted_lineages import planted, rows, write
from tests.helpers.tiny_models import byte_tokenizer

RUN = "me/run"
WEIGHTS = "GET .*/model.safetensors"
FETCH = """
    import time
    lineage, said, began = Lineage.open("me/run"), {}, time.perf_counter()
    for checkpoint, outcome in stream(lineage.checkpoints):
        if isinstance(outcome, BadInput): said[checkpoint.name] = [type(outcome).__name__, str(outcome)]
        else: said[checkpoint.name] = [(outcome / "model.safetensors").stat().st_size]
    show([said, time.perf_counter() - began])
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("models")
    for step in (0, 100, 200):
        planted(step / 50).save_pretrained(top / f"step{step}")
        byte_tokenizer().save_pretrained(top / f"step{step}")
    return top


@pytest.fixture
def hub(models: Path, tmp_path: Path) -> Iterator[Hub]:
    with Hub(tmp_path / "cache") as hub:
        for step in (0, 100, 200):
            hub.add(RUN, f"step{step}", models / f"step{step}")
        yield hub


def fetched(hub: Hub, models: Path, *troubles: Trouble) -> tuple[dict[str, Any], float]:
    """What became of each checkpoint (its weights' size less the right one, or the error), and the seconds."""
    hub.troubles += troubles
    said, seconds = hub.run(FETCH)
    right = {step: (models / step / "model.safetensors").stat().st_size for step in said}
    return {step: told[0] - right[step] if len(told) == 1 else told for step, told in said.items()}, seconds


FINE = {"step0": 0, "step100": 0, "step200": 0}
MOMENTARY = {
    "429 of a listing": (Trouble("GET /api/.*revision", "status", 1, 429, {"Retry-After": "2"}), 2.0),
    "5xx of a listing": (Trouble("GET /api/.*revision", "status", 2, 503), 1.0),
    "5xx of the refs": (Trouble("GET /api/.*refs", "status", 2, 502), 0.0),
    "429 of a file": (Trouble(WEIGHTS, "status", 1, 429, {"Retry-After": "1"}), 1.0),
    "5xx of a file": (Trouble(WEIGHTS, "status", 2, 500), 1.0),
    "cut in the middle": (Trouble(WEIGHTS, "cut"), 0.0),
    "reset in the middle": (Trouble(WEIGHTS, "reset"), 0.0),
    "slow": (Trouble("GET", "slow", 3, seconds=1.0), 1.0),
    "a wrong checksum once": (Trouble(WEIGHTS, "spoil"), 0.0),
}


@pytest.mark.parametrize("name", MOMENTARY)
def test_what_is_gone_in_a_moment_is_waited_out(name: str, hub: Hub, models: Path) -> None:
    trouble, least = MOMENTARY[name]
    said, seconds = fetched(hub, models, Trouble(**vars(trouble)))
    assert said == FINE
    assert least <= seconds < 30
    assert hub.troubles[0].times == 0


def test_a_retry_after_is_obeyed_and_not_doubled(hub: Hub, models: Path) -> None:
    """The client waits for 429 on files by itself: had we waited too, it would be asked more often."""
    fetched(hub, models, Trouble(WEIGHTS + "$", "status", 1, 429, {"Retry-After": "1"}))
    asked = [path for method, path in hub.requests if method == "GET" and path.endswith("model.safetensors")]
    assert len(asked) == 3 + 1


AT_ONCE = {"Retry-After": "0"}
"""For where it is not the waiting that is tried."""
STAYING = {
    "5xx": (
        Trouble("GET .*{commit}/model.safetensors", "status", 99, 500),
        "the Hub answered 500 for me/run at step100",
    ),
    "spoilt": (Trouble("GET .*{commit}/model.safetensors", "spoil", 99), "arrived twice with a wrong checksum"),
    "gone": (Trouble("GET .*{commit}", "gone", 1, branch=(RUN, "step100")), "has no revision 'step100'"),
}


@pytest.mark.parametrize("name", STAYING)
def test_what_stays_is_the_fault_of_one(name: str, hub: Hub, models: Path) -> None:
    trouble, words = STAYING[name]
    told = vars(trouble) | {"path": trouble.path.format(commit=commit(models / "step100"))}
    said, _ = fetched(hub, models, Trouble(**told))
    kind, text = said.pop("step100")
    assert kind == "CheckpointError"
    assert words in text
    assert "Start the same command again" in text or "Open the lineage again" in text
    assert "\n" not in text
    assert said == {"step0": 0, "step200": 0}
    if name == "spoilt":
        assert not [p for p in hub.home.rglob("*") if p.is_file() and "spoilt" in p.name]
        hub.troubles.clear()
        assert fetched(hub, models)[0] == FINE, "a spoilt file is not kept"


def test_the_audit_goes_on_where_one_file_cannot_be_had(hub: Hub, models: Path) -> None:
    (told, again) = hub.run("""
        from ontogeny.jobs.audit.audit import audit
        lineage = Lineage.open("me/run")
        show([[[f.kind, f.checkpoints, f.what] for f in audit(lineage).findings] for _ in range(2)])
    """)
    assert told == again == []
    hub.troubles.append(Trouble(f"GET .*{commit(models / 'step100')}/model.safetensors", "status", 99, 503, AT_ONCE))
    [found] = hub.run("""
        from ontogeny.jobs.audit.audit import audit
        show([[f.kind, f.severity, f.checkpoints, f.what] for f in audit(Lineage.open("me/run")).findings])
    """)
    assert found[:3] == ["unreadable", "fault", ["step100"]]
    assert "the Hub answered 503 for me/run at step100" in found[3]


def test_a_run_goes_on_says_what_is_missing_and_how_to_get_it(hub: Hub, models: Path, tmp_path: Path) -> None:
    """One branch cannot be downloaded; when it can, the same command fetches only that."""
    write(tmp_path / "small.csv", rows(characters=36))
    argv = ["trace", RUN, "-c", tmp_path / "small.csv", "-o", tmp_path / "out", "--sites", "resid", "--quiet"]
    argv += ["--probes", "mass_mean", "--no-untrained"]
    hub.troubles.append(Trouble(f"GET .*{commit(models / 'step100')}/model.safetensors$", "status", 99, 503, AT_ONCE))
    [(code, out, _)] = commands(hub, argv)
    assert code == 1, out
    assert "not traced: step100: the Hub answered 503 for me/run at step100. Start the same command again" in out
    told = json.loads((tmp_path / "out/run.json").read_text())
    assert [f["checkpoint"] for f in told["failures"]] == ["step100"]
    assert told["finished"]
    hub.troubles.clear()
    sent = hub.sent["model.safetensors"]
    again, report = commands(hub, argv, ["report", tmp_path / "out"])
    assert (again[0], report[0]) == (0, 0)
    size = (models / "step100/model.safetensors").stat().st_size
    assert size <= hub.sent["model.safetensors"] - sent < 2 * size
    assert json.loads((tmp_path / "out/run.json").read_text())["failures"] == []
    assert "Audit of the checkpoints" in (tmp_path / "out/report.html").read_text()
