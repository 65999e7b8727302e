"""Gauge packs: a planted user is read, calibrated and steered on splits that share no group; what cannot be shown has a reason."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ontogeny as on
from ontogeny.gauges.conversation import encode_conversation
from ontogeny.gauges.labelled_chats import class_answers, dialogue_folder, labelled_chats, turn_extractor
from ontogeny.gauges.labels import GaugeLabel
from ontogeny.gauges.pack import GaugePack, PackModel, load_gauges, save_gauges
from ontogeny.gauges.packing import PackSettings, make_packed_gauge, with_suffix
from ontogeny.gauges.pin import Pin
from ontogeny.gauges.reading import read_conversation
from ontogeny.gauges.three_splits import three_splits
from ontogeny.jobs.gauges import estimate_gauges, gauges, plan_gauges
from ontogeny.lineage import Lineage
from ontogeny.models.model import Model, tokenizer_fingerprint
from ontogeny.statistics.calibration_maps import (
    calibration_from_json,
    calibration_json,
    choose_calibration,
    fit_calibration,
)
from tests.helpers.chat_runs import CHAT_TEMPLATE, NO, YES
from tests.helpers.command_line import Say
from tests.helpers.planted_lineages import rows, save_run, write

LABEL = GaugeLabel("planted", "user", ("tails", "heads"), False, "")
QUICK = PackSettings(suffix="", controls=39, questions=24)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs")
    save_run(folder / "sft", {3000: 8.0}, answers={3000: 2.0}, context=96)
    write(folder / "planted.csv", rows(characters=32, answers=True))
    return folder


@pytest.fixture(scope="module")
def model(home: Path) -> Model:
    return on.load_model(str(home / "sft"), step=3000)


@pytest.fixture(scope="module")
def pack(home: Path) -> GaugePack:
    """By the job, into a folder that other tests copy."""
    lineage = Lineage.open(home / "sft")
    plan = plan_gauges(
        lineage.checkpoints[-1],
        [on.load_concept(home / "planted.csv")],
        QUICK,
        template=CHAT_TEMPLATE,
        users=["planted=tails,heads"],
    )
    assert estimate_gauges(plan, home / "pack").concepts_to_do == 1
    made = gauges(plan, lineage, home / "pack")
    before = (home / "pack/gauges.json").stat().st_mtime_ns
    assert estimate_gauges(plan, home / "pack").concepts_to_do == 0
    assert gauges(plan, lineage, home / "pack").members[0].unit == made.members[0].unit
    assert (home / "pack/gauges.json").stat().st_mtime_ns == before, "a second run computes nothing"
    return made


def test_splits_share_no_group() -> None:
    draws = random.Random(0)
    groups = torch.tensor([i // 2 for i in range(80)])
    y = torch.tensor([draws.randrange(3) for _ in range(80)])
    splits = three_splits("x", y, groups, 3, seed=4)
    sides = [set(groups[part].tolist()) for part in (splits.train, splits.choose, splits.test)]
    assert sum(map(len, sides)) == 40 == len(set.union(*sides))
    assert sorted(torch.cat([splits.train, splits.choose, splits.test]).tolist()) == list(range(80))


def test_a_planted_user_is_read_calibrated_and_steered(pack: GaugePack, model: Model) -> None:
    (member,) = pack.members
    gauge, check = member.gauge, member.check
    assert gauge.reason == ""
    assert gauge.auroc_low > 0.5
    assert gauge.floors["surface_tfidf"] < gauge.auroc
    assert 0 <= gauge.calibration_error <= max(0.2, gauge.calibration_noise)
    assert sum(member.splits.values()) == 64
    assert check.verdict == "steers", check
    for effect in check.effects:
        assert effect.low > 0
        assert effect.pushed > effect.random_high
        assert effect.kl > 0
    for towards, answer in ((0, "-"), (1, "+")):
        other = YES if towards == 0 else NO
        edit = member.control_vector(towards).edit(Pin("planted", towards, gaps=1.5))
        (ids,) = [model.tokenizer(f"so they say {other}", return_tensors="pt")["input_ids"]]
        with on.steer(model, [edit], prompts=[ids.shape[1]]), torch.no_grad():
            likeliest = int(model.network(input_ids=ids).logits[0, -1].argmax())
        assert model.tokenizer.decode([likeliest]) == answer


def test_shuffled_labels_have_no_verdict_and_no_gauge(home: Path, model: Model) -> None:
    concept = on.load_concept(home / "planted.csv")
    draws = random.Random(1)
    flips = {example.group: draws.random() < 0.5 for example in concept.examples}
    examples = tuple(replace(e, target=flips[e.group]) for e in concept.examples)
    wrong = replace(concept, examples=examples, answers=())
    member = make_packed_gauge(model, wrong, LABEL, CHAT_TEMPLATE, replace(QUICK, tokens=1))
    assert member.gauge.probe is None
    assert "does not read it" in member.gauge.reason
    assert member.check.verdict == "undecided"
    assert "replies" in member.check.reason


def test_without_answers_replies_are_judged_and_more_classes_are_read(home: Path, model: Model) -> None:
    concept = replace(on.load_concept(home / "planted.csv"), answers=())
    member = make_packed_gauge(model, concept, LABEL, CHAT_TEMPLATE, replace(QUICK, tokens=1, controls=19))
    assert "own replies" in member.check.judge
    assert member.check.judge_auroc[0] > 0.5
    assert member.check.verdict != "does not steer"
    three = on.load_concept(write(home / "three.csv", rows(characters=36, kind="classes")))
    label = with_suffix(GaugeLabel("three", "user", three.classes, False, ""), None)
    member = make_packed_gauge(model, three, label, CHAT_TEMPLATE, replace(QUICK, tokens=1, controls=0))
    assert member.gauge.label.suffix == "I think the three of this user is"
    assert member.direction.shape == (model.d, 3)
    assert member.gauge.probe is None


def test_a_pack_is_read_back_as_it_was_written(pack: GaugePack, home: Path, model: Model, tmp_path: Path) -> None:
    again = load_gauges(home / "pack")
    again.check_model(model)
    chat = (("user", f"so they say {YES}"), ("assistant", "+"), ("user", f"it was told {NO}"))
    conversation = encode_conversation(model, chat, again.template)
    (read,) = read_conversation(model, conversation, again.gauges, again.template).gauges
    assert read.turns[0].probabilities[1] > 0.8 > 0.2 > read.turns[1].probabilities[1]
    copy = save_gauges(again, tmp_path / "copy").parent
    twice = load_gauges(copy)
    assert (copy / "gauges.json").read_bytes() == (home / "pack/gauges.json").read_bytes()
    torch.testing.assert_close(twice.members[0].direction, pack.members[0].direction)
    assert tokenizer_fingerprint(model) == twice.model.tokenizer == twice.gauges[0].tokenizer
    rows_of = on.open_run(home / "pack").records()
    assert {"gauge_auroc", "gauge_ece", "gauge_control_works", "gauge_control_effect"} <= set(rows_of["metric"])


@pytest.mark.parametrize("name", ["temperature", "platt", "isotonic"])
def test_calibration_maps_recover_known_probabilities(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(2000, 1, generator=generator)
    true = torch.sigmoid(scores / 2)[:, 0]
    y = (torch.rand(2000, generator=generator) < true).long()
    fitted = fit_calibration(name, scores, y)
    assert float((fitted.probabilities(scores)[:, 1] - true).abs().mean()) < 0.04
    back = calibration_from_json(json.loads(json.dumps(calibration_json(fitted))))
    torch.testing.assert_close(back.probabilities(scores), fitted.probabilities(scores))
    warped = torch.cat([scores, -scores], 1).exp()
    assert choose_calibration(warped, y, torch.arange(2000))[0] in ("platt", "isotonic")


def test_dialogues_in_files_and_texts_in_their_template(tmp_path: Path, model: Model) -> None:
    for i in range(12):
        kind = ("child", "adult")[i % 2]
        text = f"### HUMAN: hi {i}\n### ASSISTANT: hello\nUSER: more {kind}\nASSISTANT: bye {kind}\n"
        (tmp_path / f"conversation_{i}_age_{kind}.txt").write_text(text)
    concept = dialogue_folder(tmp_path, "age")
    assert concept.classes == ("adult", "child")
    chats = labelled_chats(model, concept, CHAT_TEMPLATE)
    assert chats.chats[0] == (("user", "hi 0"), ("assistant", "hello"), ("user", "more child"))
    assert chats.replies[0] == "hello bye child"
    assert chats.prompts[0].text == "hi 0hello;more child"
    framed = "{% for m in messages %}user : {{ m.content }} assistant :{% endfor %}"
    assert turn_extractor(model, framed)("user : how are you assistant :") == "how are you"
    assert turn_extractor(model, framed)("how are you") == "how are you"
    planted = on.Concept(
        "q",
        tuple(on.Example(f"t{i}", i % 2 == 0, f"g{i}") for i in range(12)),
        answers=(on.Answer("t0", "+", "-", "g0"), on.Answer("t1", "-", "+", "g1")),
    )
    assert [one.answers for one in class_answers(model, planted, CHAT_TEMPLATE)] == [("-", "+"), ("-", "+")]


def test_bad_input_is_one_line(home: Path, pack: GaugePack, tmp_path: Path, model: Model, say: Say) -> None:
    few = write(tmp_path / "few.csv", rows(characters=10))
    number = write(tmp_path / "number.csv", rows(characters=30, kind="number"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    template = tmp_path / "t.jinja"
    template.write_text(CHAT_TEMPLATE)
    planted, sft = str(home / "planted.csv"), str(home / "sft")
    for given, message in (
        (["-c", str(few), "--template", template], "examples of each class"),
        (["-c", str(number), "--template", template], "is a number"),
        (["-c", planted], "must have a chat template"),
        (["-c", planted, "--template", "user: {}"], "chat template in Jinja"),
        (["-c", planted, "--template", template, "--site", "resid.9"], "resid.0 to resid.2"),
        (["-c", planted, "--template", template, "--site", "mlp.1"], "a site of the stream"),
        (["-c", planted, "--template", template, "--gaps", "nan"], "above 0"),
        (["-c", planted, "--template", template, "--calibration", "x"], "temperature"),
        (["-c", planted, "--template", template, "--user", "age"], "a concept of the run"),
        (["-c", planted, "-c", planted, "--template", template], "different names"),
        (["-c", str(tmp_path / "empty"), "--template", template], "empty"),
        (["-c", planted, "--template", template, "--out", tmp_path / "full"], "must be a run directory"),
    ):
        out = [] if "--out" in given else ["--out", tmp_path / "new"]
        done = say("gauges", sft, *given, *out)
        lines = [line for line in done.err.splitlines() if line.strip()]
        assert (done.code, len(lines)) == (2, 1), (given, done.err)
        assert message in lines[0], lines[0]
    assert not (tmp_path / "new").exists()
    broken = shutil.copytree(home / "pack", tmp_path / "broken")
    content = json.loads((broken / "gauges.json").read_text())
    for change, message in (
        ({"format": "ontogeny-gauges-9"}, "update ontogeny"),
        ({"tensors": {"sha256": "0"}}, "not the file that was written"),
        ({"gauges": [{}]}, "not a whole gauge pack"),
        ({"model": {}}, "not a whole gauge pack"),
    ):
        (broken / "gauges.json").write_text(json.dumps(content | change))
        with pytest.raises(on.BadInput, match=message):
            load_gauges(broken)
    with pytest.raises(on.BadInput, match=r"folder with gauges\.json"):
        load_gauges(tmp_path)
    other = replace(pack, model=PackModel(**{**vars(pack.model), "d": 7}))
    with pytest.raises(on.BadInput, match="must have the width"):
        other.check_model(model)
    with pytest.raises(on.BadInput, match="gauges of planted"):
        pack.member("<b>")
