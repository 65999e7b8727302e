"""A failing Hub: transient errors are retried, permanent ones fail one checkpoint, and the others continue."""

import json
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.flows.test_trace_hub import commands
from tests.helpers.fake_hub import Hub, Trouble, commit
from tests.helpers.planted_lineages import planted, rows, write
from tests.helpers.tiny_models import byte_tokenizer

RUN = "me/run"
FETCH = textwrap.dedent("""
    import time
    from concurrent.futures import ThreadPoolExecutor

    def fetch(repository):
        lineage, outcomes, began = Lineage.open(repository), {}, time.perf_counter()
        for checkpoint, outcome in prefetch_checkpoints(lineage.checkpoints):
            if isinstance(outcome, BadInput): outcomes[checkpoint.name] = [type(outcome).__name__, str(outcome)]
            else: outcomes[checkpoint.name] = [(outcome / "model.safetensors").stat().st_size]
        return [outcomes, time.perf_counter() - began]

    with ThreadPoolExecutor(len(repositories)) as pool:
        show(list(pool.map(fetch, repositories)))
""")
"""Fetches repositories beside each other, since most of the time is waiting."""


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


def fetched(hub: Hub, models: Path, *repositories: str) -> list[tuple[dict[str, Any], float]]:
    """By repository: outcome of each checkpoint (excess size of its weights, or the error), and the seconds."""
    results = hub.run(f"repositories = {list(repositories)}\n{FETCH}")
    right = {path.name: (path / "model.safetensors").stat().st_size for path in models.iterdir()}
    return [
        ({step: out[0] - right[step] if len(out) == 1 else out for step, out in outcomes.items()}, seconds)
        for outcomes, seconds in results
    ]


FINE = {"step0": 0, "step100": 0, "step200": 0}
WEIGHTS = "GET /{run}/.*/model.safetensors"
TRANSIENT = {
    "429 of a listing": (Trouble("GET /api/.*{run}/revision", "status", 1, 429, {"Retry-After": "2"}), 2.0),
    "5xx of a listing": (Trouble("GET /api/.*{run}/revision", "status", 2, 503), 1.0),
    "5xx of the refs": (Trouble("GET /api/.*{run}/refs", "status", 2, 502), 0.0),
    "429 of a file": (Trouble(WEIGHTS, "status", 1, 429, {"Retry-After": "1"}), 1.0),
    "5xx of a file": (Trouble(WEIGHTS, "status", 2, 500), 1.0),
    "cut in the middle": (Trouble(WEIGHTS, "cut"), 0.0),
    "reset in the middle": (Trouble(WEIGHTS, "reset"), 0.0),
    "slow": (Trouble("GET .*{run}/", "slow", 3, seconds=1.0), 1.0),
    "a wrong checksum once": (Trouble(WEIGHTS, "spoil"), 0.0),
}


def add_troubled(hub: Hub, models: Path, troubles: Iterable[Trouble]) -> list[str]:
    """A repository of its own for each trouble."""
    repositories = []
    for number, trouble in enumerate(troubles):
        repositories.append(name := f"me/run{number}")
        fields = {"path": trouble.path.format(run=name, commit=commit(models / "step100"))}
        fields |= {"branch": (name, trouble.branch[1])} if trouble.kind == "gone" else {}
        hub.troubles.append(replace(trouble, **fields))
        for step in models.iterdir():
            hub.add(name, step.name, step)
    return repositories


def test_transient_errors_are_retried(hub: Hub, models: Path) -> None:
    repositories = add_troubled(hub, models, [trouble for trouble, _ in TRANSIENT.values()])
    results = fetched(hub, models, *repositories)
    for (name, (_, least)), (outcomes, seconds), trouble in zip(TRANSIENT.items(), results, hub.troubles, strict=True):
        assert outcomes == FINE, name
        assert least <= seconds < 30, name
        assert trouble.times == 0, name


def test_retry_after_on_files_is_left_to_the_client(hub: Hub, models: Path) -> None:
    """The client itself retries 429 on files; a second retry would send more requests."""
    hub.troubles.append(Trouble(WEIGHTS.format(run=RUN) + "$", "status", 1, 429, {"Retry-After": "1"}))
    fetched(hub, models, RUN)
    requests = [path for method, path in hub.requests if method == "GET" and path.endswith("model.safetensors")]
    assert len(requests) == 3 + 1


AT_ONCE = {"Retry-After": "0"}
"""For tests that do not test the waiting."""
PERMANENT = {
    "5xx": (
        Trouble("GET /{run}/.*{commit}/model.safetensors", "status", 99, 500),
        "the Hub answered 500 for {run} at step100",
    ),
    "spoilt": (Trouble("GET /{run}/.*{commit}/model.safetensors", "spoil", 99), "arrived twice with a wrong checksum"),
    "gone": (Trouble("GET .*{run}/.*{commit}", "gone", 1, branch=("", "step100")), "has no revision 'step100'"),
}


def test_permanent_error_fails_one_checkpoint(hub: Hub, models: Path) -> None:
    repositories = add_troubled(hub, models, [trouble for trouble, _ in PERMANENT.values()])
    results = fetched(hub, models, *repositories)
    for (_, words), repository, (outcomes, _) in zip(PERMANENT.values(), repositories, results, strict=True):
        kind, text = outcomes.pop("step100")
        assert kind == "CheckpointError"
        assert words.format(run=repository) in text
        assert "start the same command again" in text or "open the lineage again" in text
        assert "\n" not in text
        assert outcomes == {"step0": 0, "step200": 0}
    assert not [p for p in hub.home.rglob("*") if p.is_file() and "spoilt" in p.name]
    hub.troubles.clear()
    [(outcomes, _)] = fetched(hub, models, repositories[list(PERMANENT).index("spoilt")])
    assert outcomes == FINE, "a corrupt file is deleted"


def test_audit_continues_after_an_unreadable_file(hub: Hub, models: Path) -> None:
    (first, again) = hub.run("""
        from ontogeny.jobs.audit.audit import audit
        lineage = Lineage.open("me/run")
        show([[[f.kind, f.checkpoints, f.what] for f in audit(lineage).findings] for _ in range(2)])
    """)
    assert first == again == []
    hub.troubles.append(Trouble(f"GET .*{commit(models / 'step100')}/model.safetensors", "status", 99, 503, AT_ONCE))
    [finding] = hub.run("""
        from ontogeny.jobs.audit.audit import audit
        show([[f.kind, f.severity, f.checkpoints, f.what] for f in audit(Lineage.open("me/run")).findings])
    """)
    assert finding[:3] == ["unreadable", "fault", ["step100"]]
    assert "the Hub answered 503 for me/run at step100" in finding[3]


def test_run_reports_a_failed_checkpoint_and_fetches_only_it_next_time(hub: Hub, models: Path, tmp_path: Path) -> None:
    """One branch cannot be downloaded; later the same command fetches only that branch."""
    write(tmp_path / "small.csv", rows(characters=36))
    argv = ["trace", RUN, "-c", tmp_path / "small.csv", "-o", tmp_path / "out", "--sites", "resid", "--quiet"]
    argv += ["--probes", "mass_mean", "--no-untrained"]
    hub.troubles.append(Trouble(f"GET .*{commit(models / 'step100')}/model.safetensors$", "status", 99, 503, AT_ONCE))
    [(code, out, _)] = commands(hub, argv)
    assert code == 1, out
    assert (
        "not traced: pretrain step100: the Hub answered 503 for me/run at step100: start the same command again" in out
    )
    metadata = json.loads((tmp_path / "out/run.json").read_text())
    assert [f["checkpoint"] for f in metadata["failures"]] == ["step100"]
    assert metadata["finished"]
    hub.troubles.clear()
    sent = hub.sent["model.safetensors"]
    again, report = commands(hub, argv, ["report", tmp_path / "out"])
    assert (again[0], report[0]) == (0, 0)
    size = (models / "step100/model.safetensors").stat().st_size
    assert size <= hub.sent["model.safetensors"] - sent < 2 * size
    assert json.loads((tmp_path / "out/run.json").read_text())["failures"] == []
    assert "Audit of the checkpoints" in (tmp_path / "out/report.html").read_text()


def test_branch_outside_of_the_cache_is_refused(hub: Hub, models: Path, tmp_path: Path) -> None:
    names = ["../../../outside/step300", "/etc/step300", "step300/../../x", "step 300"]
    repositories = []
    for number, (name, tag) in enumerate((name, tag) for name in names for tag in (False, True)):
        repositories.append(f"me/outside{number}")
        hub.add(repositories[-1], name, models / "step200", tag=tag)
        hub.add(repositories[-1], "step0", models / "step0")
    before = {path for path in tmp_path.parent.rglob("*") if tmp_path / "cache" not in path.parents}
    messages = hub.run(f"""
        messages = []
        for repository in {repositories}:
            try: Lineage.open(repository)
            except BadInput as error: messages.append(str(error))
        show(messages)
        """)
    assert len(messages) == len(repositories) == 8
    assert all("which is not a name in git" in message for message in messages)
    assert {path for path in tmp_path.parent.rglob("*") if tmp_path / "cache" not in path.parents} == before


def test_revision_outside_of_the_cache_is_refused(hub: Hub, tmp_path: Path) -> None:
    """A name from a file, and a commit that a mirror gives for a good name."""
    messages = hub.run(
        """
        from ontogeny.lineage import hub as hub_files
        from ontogeny.lineage.weight_files import CheckpointFiles
        messages = []
        for revision, commit in (("../../../outside", None), ("step0", "../../../outside")):
            wanted = CheckpointFiles((), (), commit)
            for read in (
                lambda: hub_files.cached_snapshot("me/run", revision, commit),
                lambda: hub_files.download_snapshot("me/run", revision, wanted),
            ):
                try: read()
                except BadInput as error: messages.append(str(error))
        show(messages)
        """
    )
    assert len(messages) == 4
    assert all("'../../../outside', which is not a name in git" in message for message in messages)
    assert not (tmp_path / "outside").exists()
