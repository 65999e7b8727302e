"""Chat of the dashboard: what the model takes its user to be at any checkpoint, under pins, and at two checkpoints; the steering bench."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nicegui", reason="needs the extra dashboard")
from starlette.testclient import TestClient

import ontogeny as on
from ontogeny.dashboard import export
from ontogeny.dashboard.api import make_api
from ontogeny.dashboard.chat_options import ChatOptions
from ontogeny.dashboard.shown_run import ShownRuns
from ontogeny.jobs.trace.digests import write_digests
from ontogeny.lineage import FileDigests, Lineage
from ontogeny.lineage.fetch import file_digest
from ontogeny.models.reusable import ReusableModel
from ontogeny.storage.directions import load_direction
from ontogeny.storage.run import Run
from tests.helpers.chat_runs import CHAT_TEMPLATE, EARLY, LATE, NO, STAGE, YES, chat_pack, chat_run
from tests.helpers.command_line import Say

TURNS = [f"so they say {YES}", f"it was told {NO}"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    run = chat_run(tmp_path_factory)
    runs = ShownRuns([run.folder], ChatOptions(CHAT_TEMPLATE, users=("planted=tails,heads",)))
    client = TestClient(make_api(runs, "secret"))
    assert client.get("/api/runs?token=secret").status_code == 200
    return client


def ask(client: TestClient, path: str = "chat", **body: Any) -> Any:
    about = {"stage": STAGE, "step": LATE} | (
        {"turns": TURNS, "gauges": ["planted"], "tokens": 1} if "chat" in path else {}
    )
    answer = client.post(f"/api/runs/run/{path}", json=about | body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(client: TestClient, path: str = "chat", **body: Any) -> str:
    about = {"stage": STAGE, "step": LATE, "turns": TURNS, "tokens": 1}
    answer = client.post(f"/api/runs/run/{path}", json=about | body)
    assert answer.status_code == 400, answer.text
    return str(answer.json()["error"])


def test_cards_say_what_is_readable_where(client: TestClient) -> None:
    early, late = (
        client.get("/api/runs/run/gauges", params={"stage": STAGE, "step": step}).json()["gauges"][0]
        for step in (EARLY, LATE)
    )
    assert (early["readable"], late["readable"]) == (False, True)
    assert "does not read it here" in early["reason"]
    assert late["classes"] == ["tails", "heads"]
    assert late["subject"] == "user"
    assert late["n"] == 40
    assert late["traced"].startswith("20")


def test_a_chat_tells_its_user_at_every_turn(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    (plain,) = ask(client)["arms"]
    assert [turn["reply"] for turn in plain["turns"]] == ["+", "-"]
    first, second = plain["gauges"][0]["turns"]
    assert first["probabilities"][1] > 0.8 > 0.2 > second["probabilities"][1]
    loads: list[Path] = []
    load = ReusableModel.load
    monkeypatch.setattr(ReusableModel, "load", lambda self, folder: (loads.append(folder), load(self, folder))[1])
    assert ask(client)["arms"] == [plain]
    more = ask(client, turns=[*TURNS, f"we have seen {YES}"])["arms"][0]
    assert [turn["reply"] for turn in more["turns"]] == ["+", "-", "+"]
    assert loads == [], "the weights are in memory"
    (early,) = ask(client, step=EARLY)["arms"]
    assert early["gauges"][0]["turns"] == []
    assert "does not read it here" in early["gauges"][0]["reason"]


def test_a_pin_stands_beside_the_plain_answer_and_a_random_twin(client: TestClient) -> None:
    pin = {"concept": "planted", "towards": 0, "hold": True, "since": 0}
    answer = ask(client, turns=TURNS[:1], pins=[pin])
    texts = {arm["name"]: arm["turns"][0]["reply"] for arm in answer["arms"]}
    assert texts == {"plain": "+", "steered": "-", "random": "+"}
    assert answer["arms"][1]["turns"][0]["kl"] > 0.01
    later = ask(client, pins=[pin | {"towards": 1, "since": 1}])["arms"][1]
    assert [turn["reply"] for turn in later["turns"]] == ["+", "+"]
    assert later["turns"][0]["kl"] == 0


def test_two_checkpoints_are_compared_token_by_token(client: TestClient) -> None:
    same = ask(client, "chat/difference", other_stage=STAGE, other_step=LATE)["turns"]
    assert all(turn["a"] == turn["b"] for turn in same)
    other = ask(client, "chat/difference", other_stage=STAGE, other_step=EARLY)["turns"]
    assert [turn["words"] for turn in other] == [["+"], ["-"]]
    assert all(turn["a"][0] > turn["b"][0] for turn in other), "the early model does not answer by the user"


def test_the_bench_pushes_by_lengths_and_gives_the_vector(client: TestClient, tmp_path: Path) -> None:
    answer = ask(client, "bench", text=TURNS[0], concept="planted", towards=0, gaps=[0, 2], tokens=1)
    assert [row["gaps"] for row in answer["rows"]] == [0, 2, None]
    still, pushed, held = answer["rows"]
    assert still["steered"]["reply"] == still["plain"]["reply"] == "+"
    assert still["steered"]["kl"] == 0
    assert pushed["steered"]["reply"] == held["steered"]["reply"] == "-"
    assert pushed["random"]["reply"] == "+"
    file = client.get(
        "/api/runs/run/vector",
        params={"concept": "planted", "stage": STAGE, "step": LATE, "towards": 0, "site": answer["site"]},
    )
    (tmp_path / "v.safetensors").write_bytes(file.content)
    vector = load_direction(tmp_path / "v.safetensors")
    assert (str(vector.site), vector.sign, vector.scale) == (answer["site"], "tails", "gap")
    assert float(vector.vector.norm()) == pytest.approx(vector.facts["gap"], rel=1e-5)


def test_the_command_names_what_a_chat_cannot_have(tmp_path_factory: pytest.TempPathFactory, say: Say) -> None:
    folder = chat_run(tmp_path_factory).folder
    for options, message in (
        (["--user", "nothing"], "concept of the run (planted)"),
        (["--user", "planted=a,b,c"], "must have 2 names"),
        (["--template", "{}"], "--template must be a chat template in Jinja"),
        (["--template", "none"], "--template must be a chat template in Jinja"),
    ):
        said = say("dashboard", folder, "--no-browser", "--port", 0, *options)
        assert (said.code, message in said.err) == (2, True), said.err


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"turns": []}, "at least one turn"),
        ({"turns": [" "]}, "must have words"),
        ({"turns": ["x" * 8001]}, "at most 8,000 letters"),
        ({"turns": ["x" * 256]}, "start a new one"),
        ({"tokens": 0}, "from 1 to 256"),
        ({"tokens": 257}, "from 1 to 256"),
        ({"temperature": -1}, "at least 0"),
        ({"seed": 10**19}, "18 digits"),
        ({"gauges": ["nothing"]}, "concepts of the run"),
        ({"gauges": ["planted"] * 25}, "at most 24"),
        ({"pins": [{"concept": "planted", "towards": 7}]}, "from 0 to 1, got 7"),
        ({"pins": [{"concept": "planted", "towards": 1, "gaps": 99}]}, "push less"),
        ({"pins": [{"concept": "planted", "towards": 1, "site": "mlp.9"}]}, "one that was traced"),
        ({"pins": [{"concept": "planted", "towards": 1, "site": "<b>"}]}, "is not a site"),
        ({"step": EARLY, "pins": [{"concept": "planted", "towards": 1}]}, "not readable"),
        ({"step": "7"}, "lists no checkpoint"),
    ],
    ids=range(16),
)
def test_what_no_chat_can_have_is_one_sentence(client: TestClient, body: dict[str, Any], message: str) -> None:
    assert message in refused(client, **body)


def test_a_value_of_another_type_is_one_sentence(client: TestClient) -> None:
    body = {"stage": STAGE, "step": LATE, "turns": ["a"], "pins": [{"concept": "planted", "towards": "x"}]}
    answer = client.post("/api/runs/run/chat", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("`pins.0.towards` cannot be used: ")


def test_a_model_without_a_chat_template_says_so(client: TestClient, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = chat_run(tmp_path_factory)
    bare = TestClient(make_api(ShownRuns([run.folder]), "secret"))
    bare.get("/api/runs?token=secret")
    answer = bare.post("/api/runs/run/chat", json={"stage": STAGE, "step": LATE, "turns": ["a"]})
    assert answer.status_code == 400
    assert "chat template" in answer.json()["error"]
    for options in (
        ChatOptions(users=("nothing",)),
        ChatOptions(users=("planted=,",)),
        ChatOptions(users=("planted=a",)),
        ChatOptions(users=("planted",), systems=("planted",)),
    ):
        with pytest.raises(on.BadInput, match="gauge"):
            ShownRuns([run.folder], options)


def test_models_that_are_gone_come_from_the_lineage_file(
    client: TestClient, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, say: Say
) -> None:
    """A run that was copied to another machine: its chat, texts and attention, and no other weights than the traced ones."""
    run = chat_run(tmp_path_factory)
    home = Path(run.about["lineage"]["source"])
    moved = Run(Path(shutil.copytree(run.folder, tmp_path / "run")))
    about = moved.about
    for entry in about["lineage"]["checkpoints"]:
        entry["source"] = f"{home.name}/{Path(entry['source']).name}"
    moved.describe(about)
    weights = home / f"checkpoint-{LATE}/model.safetensors"
    # A trace keeps the digests of weights that are older than two seconds.
    write_digests(moved.folder, FileDigests({str(weights): [0, 0, 0, 0, file_digest(weights)]}, changed=True))

    def asked_of(lineage: Lineage | None) -> TestClient:
        made = TestClient(make_api(ShownRuns([moved.folder], ChatOptions(CHAT_TEMPLATE), lineage), "secret"))
        assert made.get("/api/runs?token=secret").status_code == 200
        return made

    assert home.name in refused(asked_of(None))
    opened = Lineage.open(home, stage=STAGE)
    here = asked_of(opened)
    assert ask(here, turns=TURNS)["arms"][0]["turns"] == ask(client, turns=TURNS)["arms"][0]["turns"]
    text = {"text": TURNS[0], "concept": "planted"}
    assert ask(here, "texts", **text)["scores"] == ask(client, "texts", **text)["scores"]
    assert ask(here, "attention", text=TURNS[0])["heads"] > 0
    other = Path(shutil.copytree(home, tmp_path / "other"))
    shutil.copy(other / f"checkpoint-{EARLY}/model.safetensors", other / f"checkpoint-{LATE}/model.safetensors")
    assert "weights that were traced" in refused(asked_of(Lineage.open(other, stage=STAGE)))
    assert "a folder of this machine" in say("dashboard", moved.folder, "--lineage", tmp_path / "no.toml").err
    elsewhere = say("dashboard", moved.folder, "--lineage", write_lineage(tmp_path, home))
    assert (elsewhere.code, "--lineage must have checkpoints of the runs" in elsewhere.err) == (2, True), elsewhere.err


def write_lineage(folder: Path, source: Path) -> Path:
    """A lineage file whose stage has another name."""
    file = folder / "lineage.toml"
    file.write_text(f'name = "x"\n[[stages]]\nname = "sft"\nsource = "{source}"\n')
    return file


def test_controls_of_a_gauge_are_asked_for_apart(client: TestClient) -> None:
    (controls,) = ask(client, "chat/controls")["gauges"]
    assert controls["bare"]["probabilities"][1] < 0.2
    assert controls["random_p"] < 0.1
    assert "bare" not in ask(client)["arms"][0]["gauges"][0]


def test_an_export_holds_chats_with_pins_and_texts(
    client: TestClient, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers of the endpoints, under the addresses of the page; what an early checkpoint cannot do is a reason in it."""
    monkeypatch.setattr(export, "load_views", list)
    options = ChatOptions(CHAT_TEMPLATE, users=("planted=tails,heads",))
    shown = ShownRuns([chat_run(tmp_path_factory).folder], options).first
    page = export.export_site(shown, tmp_path / "site", TURNS[:1], [TURNS], options).read_text(encoding="utf-8")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    at = "\n".join(["chat/chat", *TURNS, STAGE, LATE])
    assert data[at]["arms"] == ask(client, tokens=40)["arms"]
    assert data[at]["controls"]["planted"] == ask(client, "chat/controls", tokens=40)["gauges"][0]
    pin = {"concept": "planted", "towards": 0, "hold": True}
    assert data[f"{at}\nplanted=0"]["arms"] == ask(client, pins=[pin], tokens=40)["arms"]
    assert (
        "does not read it here"
        in data["\n".join(["chat/chat", *TURNS, STAGE, EARLY])]["arms"][0]["gauges"][0]["reason"]
    )
    asked = {"text": TURNS[0], "concept": "planted"}
    for name, key in (("texts", ["texts", "planted", TURNS[0]]), ("attention", ["attention", TURNS[0]])):
        assert data["\n".join([*key, STAGE, LATE])] == ask(client, name, **asked)
    with pytest.raises(on.BadInput, match="context has 256"):
        export.export_site(shown, tmp_path / "other", (), [["x" * 257]], options)
    assert not (tmp_path / "other").exists()


def test_a_gauge_pack_takes_the_place_of_the_gauges_of_the_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Its card has its provenance, its vector pins, and a chat at another checkpoint says so."""
    run, pack = chat_run(tmp_path_factory), chat_pack(tmp_path_factory)
    packed = TestClient(make_api(ShownRuns([run.folder], ChatOptions(pack=pack)), "secret"))
    assert packed.get("/api/runs?token=secret").status_code == 200
    early, late = (
        packed.get("/api/runs/run/gauges", params={"stage": STAGE, "step": step}).json()["gauges"][0]
        for step in (EARLY, LATE)
    )
    assert "another checkpoint" in early["elsewhere"]
    assert late["elsewhere"] == ""
    assert late["pack"].startswith("of pretrain checkpoint-3000: 18 / 12 / 18 conversations")
    assert late["control"].startswith("steers: towards <b>tails</b>")
    assert late["control_site"] == str(pack.members[0].control_site)
    held = ask(packed, pins=[{"concept": "planted", "towards": 0, "hold": True}])
    assert held["template"] == "the template of the gauge pack"
    plain, steered, _ = held["arms"]
    assert plain["gauges"][0]["turns"][0]["probabilities"][1] > 0.8
    assert (plain["turns"][0]["reply"], steered["turns"][0]["reply"]) == ("+", "-")
    assert "where the gauge pack controls" in refused(
        packed, pins=[{"concept": "planted", "towards": 0, "site": "resid.0"}]
    )
