"""`ontogeny drift`: rows by round and mitigation over steps, resumable, a dry run, a view, and one line for wrong input."""

import json
import re
import shutil
from pathlib import Path

import pytest

from ontogeny.dialogues.instructions import INSTRUCTIONS
from ontogeny.dialogues.mitigations import PLAIN, Mitigation
from ontogeny.dialogues.self_chat import DialogueSettings
from ontogeny.jobs.drift import DriftSettings, drift
from tests.helpers.command_line import Say
from tests.helpers.tiny_models import save_tiny

NAMES = ("mentions_blue", "upper_case")
QUICK = DialogueSettings(rounds=1, pairs=2, runs=1, tokens=4)
SETTINGS = DriftSettings(QUICK, (PLAIN, Mitigation("split_softmax", 0.5)))


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drift") / "run"
    for step in (1, 2):
        save_tiny("llama", folder / f"checkpoint-{step}", seed=step, context=1024)
    return folder


@pytest.fixture(scope="module")
def run(lineage: Path):
    return drift(lineage, NAMES, lineage.parent / "out", SETTINGS)


def test_rows_of_each_round_mitigation_and_step(run) -> None:
    rows = run.records("metric = 'adherence' and control is null")
    methods = ["plain", "split_softmax .5"]
    assert sorted(set(zip(rows.step, rows.method, strict=True))) == [(s, m) for s in (1, 2) for m in methods]
    for _, own in rows.groupby(["step", "method", "concept"], dropna=False):
        assert [dict(c)["rounds"] for c in own.coords] == ["0", "1"]
        assert own.n.isin([2, 4]).all()
        assert ((own.low <= own.value) & (own.value <= own.high)).all()
    controls = run.query("select distinct metric, control from records where control is not null")
    assert set(zip(controls.metric, controls.control, strict=True)) == {
        ("adherence", "no_system"),
        ("adherence", "one_turn"),
        ("adoption", "stranger"),
        ("adoption_change", "stranger"),
        ("attention_drop", "within_turns"),
        ("instruction_recall", "not_asked"),
    }
    template = run.records("metric = 'in_template'")
    assert set(template.value) == {0}
    assert [dict(c) for c in template.coords] == [{"template": "plain"}] * 4
    mass = run.records("metric = 'attention_mass'")
    heads = mass[mass.site.notna()]
    assert len(heads) == 2 * 2 * 2 * 4  # steps, instructions, layers, heads
    assert len(mass) - len(heads) == 2 * 3  # means over heads, of both instructions too
    assert mass.value.between(0, 1).all()


def test_finished_units_are_not_measured_again_and_a_new_mitigation_joins(run, lineage: Path) -> None:
    before = len(run.ledger())
    drift(lineage, NAMES, run.folder, SETTINGS)
    assert len(run.ledger()) == before
    more = DriftSettings(QUICK, (*SETTINGS.mitigations, Mitigation("repetition", 1)))
    again = drift(lineage, NAMES, run.folder, more)
    assert [entry["mitigation"] for entry in again.ledger()[before:]] == ["repetition 1"] * 2
    assert again.about["finished"]


def test_view_and_command(run, lineage: Path, say: Say) -> None:
    chart = json.dumps(run.show("persona_drift").to_dict())
    assert "split_softmax .5" in chart
    quick = ("--rounds", 1, "--pairs", 2, "--runs", 1, "--tokens", 4, "--quiet")
    both = ("-s", "mentions_blue", "-s", "upper_case", "--steps", "all")
    done = say("drift", lineage, *both, *quick, "--out", run.folder)
    assert done.code == 0, done.err
    assert done.out.count("adherence") == 2, done.out
    assert "next: ontogeny show" in done.out
    plan = say("drift", lineage, *both, "-m", "plain", "-m", "guidance=1.5,2", "--dry-run", "--json")
    data = json.loads(plan.out)
    assert data["mitigations"] == ["plain", "guidance 1.5", "guidance 2"]
    dialogues, answers = 12, 12 * (15 + 18 + 18)
    assert data["answers_per_checkpoint"] == 3 * answers + dialogues * (16 + 2)


def test_system_prompts_of_ones_own(lineage: Path, say: Say) -> None:
    own = ("-s", "Say red.", "--judge", "words:red", "-s", "Shout now.", "--judge", "upper_case")
    done = say("drift", lineage / "checkpoint-1", *own, "--rounds", 1, "--pairs", 2, "--tokens", 3, "--json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)["rows"]
    assert {row["concept"] for row in rows} == {"own 1", "own 2", None}


WRONG = {
    "unknown instruction": (("-s", "pirates"), "did you mean pirate"),
    "own without judge": (("-s", "Say red."), "needs a `?--judge`?, got 0"),
    "judge without own": (("-s", "json", "--judge", "json"), "0 system prompts of your own needs a --judge, got 1"),
    "unknown judge": (("-s", "Say red.", "--judge", "jsn"), "did you mean json"),
    "empty prompt": (("-s", " ", "--judge", "json"), "must be a text, got an empty one"),
    "twice": (("-s", "json", "-s", "json"), "got json, json"),
    "method": (("-m", "splitsoftmax"), "did you mean split_softmax"),
    "strength": (("-m", "split_softmax=0"), "above 0 and at most 1, got 0"),
    "method twice": (("-m", "capping", "-m", "capping=0.25"), "capping .25 twice"),
    "rounds": (("--rounds", "0"), "--rounds must be at least 1"),
    "pairs": (("--pairs", "1"), "--pairs must be at least 2"),
    "greedy": (("--temperature", "0"), "--runs must be 1 without sampling"),
    "top_p": (("--top-p", "2"), "--top-p"),
    "template": (("--template", "User: {}"), "must be a chat template in Jinja"),
    "broken template": (("--template", "{{ nothing.there.at_all }}"), "cannot be rendered"),
    "openings": (("--openings", "nowhere.txt"), "nowhere.txt cannot be read"),
    "steps": (("--steps", "7"), "7"),
    "device": (("--device", "tpu9"), "cannot be used"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line(name: str, lineage: Path, say: Say) -> None:
    options, words = WRONG[name]
    done = say("drift", lineage, *options, "--quiet")
    assert done.code == 2, done.out
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert re.search(words, done.err), done.err


def test_a_model_without_words_of_the_system_turn_is_refused(lineage: Path, tmp_path: Path, say: Say) -> None:
    folder = tmp_path / "model"
    shutil.copytree(lineage / "checkpoint-1", folder)
    (folder / "chat_template.jinja").write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    )
    done = say("drift", folder, "-s", "json", "--quiet")
    assert done.code == 2
    assert "no system role" in done.err
    assert INSTRUCTIONS["json"].name == "json"
