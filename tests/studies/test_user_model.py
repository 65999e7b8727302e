"""The study of the user model: real dialogues of a folder, held apart from those that the model learns, and unusable folders."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ontogeny.errors import BadInput
from ontogeny.jobs.study.paper_study import Lab, load_paper_study
from ontogeny.studies.user_model._chats import make_corpus
from ontogeny.worlds import user_attributes

STUDY = load_paper_study("user_model")
SMOKE = replace(STUDY.presets["smoke"], vocabulary=300, context=400, turns=3)


def write_dialogues(folder: Path, count: int) -> None:
    """Dialogues of both attributes as text files, as TalkTuner publishes them."""
    world = user_attributes.make()
    chats = user_attributes.labelled_dialogues(world, np.random.default_rng(0), count, [1, 2, 3])
    for place, attribute in enumerate(user_attributes.ATTRIBUTES):
        (folder / attribute.name).mkdir(parents=True)
        for number, (chat, classes) in enumerate(chats):
            names = {"user": "HUMAN", "assistant": "ASSISTANT"}
            text = "\n\n".join(f"{names[role]}: {words}" for role, words in chat)
            name = f"conversation_{number}_{attribute.name}_{attribute.classes[classes[place]]}.txt"
            (folder / attribute.name / name).write_text(text, encoding="utf-8")


def test_reads_the_dialogues_of_a_folder(tmp_path: Path) -> None:
    write_dialogues(tmp_path / "chats", 120)
    settings = replace(SMOKE, chats=str(tmp_path / "chats"))
    corpus = make_corpus(settings, 0)
    assert [one.name for one in corpus.attributes] == ["expertise", "formality"]
    assert all(one.label.sensitive for one in corpus.attributes)  # not known to be harmless
    kept = {example.group for example in corpus.attributes[0].concept.examples}
    assert 50 < len(kept) < 65
    learned = corpus.tokenizer.decode(np.concatenate([corpus.batches(step).ids.flatten() for step in range(30)]))
    first = next(iter(corpus.attributes[0].concept.examples)).chat[0][1]
    assert corpus.tokenizer.unk_token_id not in corpus.tokenizer(first)["input_ids"]
    assert learned.count("assistant:") > 60
    one = replace(SMOKE, chats=str(tmp_path / "chats" / "formality"), doses=(1.0,), questions=5)
    rows = list(STUDY.run(one, Lab("user_model", 0, tmp_path)))
    assert {row.coords["attribute"] for row in rows} == {"formality"}
    assert {row.step for row in rows if row.metric == "accuracy_by_turn"} == {1, 2, 3}
    assert all(row.note for row in rows if row.n == 0)


def test_rejects_a_folder_without_dialogues(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="`chats` must be a folder of labelled dialogues"):
        make_corpus(replace(SMOKE, chats=str(tmp_path)), 0)
    write_dialogues(tmp_path / "few", 6)
    with pytest.raises(BadInput, match="needs 10"):
        make_corpus(replace(SMOKE, chats=str(tmp_path / "few")), 0)
