"""`ontogeny edit`: a model that from_pretrained opens and that gives the new objects, rows with their nulls, and clear lines."""

import json
from pathlib import Path

import pytest
import torch

from tests.helpers.command_line import Say
from tests.helpers.tiny_models import byte_tokenizer, tiny_model

FACTS = ("--fact", "the {cat} lives in the", "--to", "m", "--fact", "a {king} is", "--to", "T")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lineage of two checkpoints with opinions, and a file of texts."""
    folder = tmp_path_factory.mktemp("edit")
    for step in (1, 2):
        network = tiny_model("llama", seed=step)
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(6)
        network.save_pretrained(folder / f"run/checkpoint-{step}")
        byte_tokenizer(bos=True).save_pretrained(folder / f"run/checkpoint-{step}")
    nouns = ("tower", "river", "garden", "table", "road", "moor")
    (folder / "texts.txt").write_text("".join(f"the {a} near the {b} is old\n" for a in nouns for b in nouns))
    return folder


def test_facts_are_edited_in_sequence_and_the_saved_model_gives_them(place: Path, say: Say) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = ("--texts", place / "texts.txt", "--layer", "1", "--controls", "2", "--neighbour", "a dog is")
    out = place / "out"
    command = ("edit", place / "run", *FACTS, *options, "--method", "alphaedit", "--steps", "1", "--out", out, "--json")
    dry = say(*command, "--dry-run")
    assert dry.code == 0
    assert json.loads(dry.out)["facts"] == 2
    assert not out.exists(), "a dry run writes nothing"
    done = say(*command)
    assert done.code == 0, done.err
    rows = json.loads(done.out)["records"]
    table = {
        (r["metric"], r["control"], *(r["coords"].get(k) for k in ("prompts", "fact", "evaluated"))): r for r in rows
    }
    assert {r["step"] for r in rows} == {1}
    assert {r["control"] for r in rows} == {None, "unedited", "random_rank_one", "random_value"}
    for number in "12":
        edited, before = (
            table["edit_probability", c, "fact", number, "after_this"]["value"] for c in (None, "unedited")
        )
        assert edited > before
        assert ("edit_probability", None, "fact", number, "after_all") in table
    assert ("edit_null_rank", None, None, "1", "after_this") in table
    network, tokenizer = (kind.from_pretrained(out / "model") for kind in (AutoModelForCausalLM, AutoTokenizer))
    ids = tokenizer("a king is T", return_tensors="pt").input_ids
    with torch.no_grad():
        scores = network(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[-2:, 0]
    wanted = table["edit_probability", None, "fact", "2", "after_all"]["value"]
    assert float(scores.sum().exp()) == pytest.approx(wanted, rel=1e-3)
    ledger = (out / "ledger.jsonl").read_text()
    again = say(*command)
    assert json.loads(again.out) == json.loads(done.out)
    assert (out / "ledger.jsonl").read_text() == ledger, "a second run computes nothing"
    about = json.loads((out / "run.json").read_text())
    assert about["finished"]
    assert about["command"]
    drawn = say("show", out, "edits", "--out", out / "edits.json")
    assert drawn.code == 0, drawn.err
    picture = (out / "edits.json").read_text()
    assert "a king is \\u2192 T" in picture
    assert "random rank-one changes" in picture
    other = say(*command, "--seed", "1")
    assert other.code == 2
    assert "`" not in other.err
    assert "another edit" in other.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--method", "rom"), "no editing method called 'rom'; did you mean rome?"),
        (("--layer", "7"), "--layer must be 1 to 2, the blocks of this model, got 7"),
        (("--layer", "1,2"), "--layer of rome must be one"),
        (("--layer", "x"), "--layer must be whole numbers from 1"),
        (("--fact", "a dog is"), "--to must be given once for each --fact"),
        (("--fact", "the {cat", "--to", "x"), "--fact must have one subject in braces"),
        (("--fact", "the {} is", "--to", "x"), "--fact must have one subject in braces"),
        (("--fact", " ", "--to", "x"), "--fact must be the text before the object"),
        (("--fact", "a dog is", "--to", " "), "--to must be the new object"),
        (("--fact", "a dog is", "--to", "x", "--from", "y"), "--paraphrase and --from belong to one fact"),
        (("--neighbour", " "), "a paraphrase or a neighbour must have a word"),
        (("--layer", "2"), "an edit in the last block acts on"),
        (("--null-share", "1.5", "--method", "alphaedit"), "--null-share must be between 0 and 1"),
        (("--ridge", "-1"), "--ridge must be at least 0"),
        (("--texts", "nowhere.txt"), "nowhere.txt"),
        (("--steps", "77"), "77"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(place: Path, say: Say, words: tuple[str, ...], line: str) -> None:
    texts = () if "--texts" in words else ("--texts", place / "texts.txt")
    layer = () if "--layer" in words else ("--layer", "1")
    said = say(
        "edit",
        place / "run",
        "--fact",
        "the {cat} is",
        "--to",
        "old",
        *texts,
        *layer,
        *words,
        "-q",
        "--out",
        place / "bad",
    )
    assert said.code == 2
    assert line in said.err
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
    assert not (place / "bad/model").exists()
