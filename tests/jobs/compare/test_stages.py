"""Stages of a comparison: selected, named, loaded once, and dropped when memory is full."""

from pathlib import Path

import pytest

from ontogeny.errors import BadInput
from ontogeny.jobs.compare.stages import (
    StageModels,
    lineage_from_names,
    select_stages,
    stamp_rows,
    weight_identities,
)
from ontogeny.lineage import Checkpoint, Lineage, Stage
from ontogeny.records import Record
from tests.helpers.tiny_models import save_tiny


def _tree() -> Lineage:
    def some(stage: str, *steps: int) -> tuple[Checkpoint, ...]:
        return tuple(Checkpoint(f"x/{stage}-{step}", stage=stage, step=step) for step in steps)

    return Lineage("tree", (Stage("pretrain", some("pretrain", 0, 8)), Stage("sft", some("sft", 0, 2, 4), "pretrain")))


def test_selector_names_single_and_several_checkpoints() -> None:
    assert [(n, c.step) for n, c in select_stages(_tree(), "sft:*,pretrain:last").items()] == [
        ("pretrain", 8),
        ("sft:0", 0),
        ("sft:2", 2),
        ("sft:4", 4),
    ]
    assert list(select_stages(_tree(), "pretrain,sft")) == ["pretrain", "sft"]


@pytest.mark.parametrize(
    ("text", "says"), [("sfd:last", "did you mean sft"), ("sft:last,sft:*", "twice"), ("sft:3", "nearest")]
)
def test_rejects_bad_selector(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        select_stages(_tree(), text)


def test_stages_are_named_by_pairs(tmp_path: Path) -> None:
    folders = [save_tiny("gpt2", tmp_path / name, seed=seed) for seed, name in enumerate(("a", "b"))]
    lineage, found = lineage_from_names([f"base={folders[0]}", f"post={folders[1]}"])
    assert list(found) == ["base", "post"]
    assert lineage.stage("post").parent == "base"
    with pytest.raises(BadInput, match="same weights"):
        weight_identities(lineage_from_names([f"base={folders[0]}", f"post={folders[0]}"])[1])
    with pytest.raises(BadInput, match="two stages or more"):
        weight_identities(lineage_from_names([f"base={folders[0]}"])[1])
    with pytest.raises(BadInput, match="two stages are called"):
        lineage_from_names([f"base={folders[0]}", f"base={folders[1]}"])
    with pytest.raises(BadInput, match="NAME=REPO"):
        lineage_from_names([str(folders[0])])


def test_models_are_loaded_once_and_the_least_recently_used_is_dropped(tmp_path: Path) -> None:
    folders = [save_tiny("gpt2", tmp_path / name, seed=seed) for seed, name in enumerate("abc")]
    _, found = lineage_from_names([f"{folder.name}={folder}" for folder in folders])
    roomy = StageModels(found)
    for name in (*"abc", *"abc"):
        assert roomy[name].network is roomy[name].network
    assert roomy.loads == {"a": 1, "b": 1, "c": 1}
    assert "a" in roomy
    assert "z" not in roomy

    size = sum(p.numel() * p.element_size() for p in roomy["a"].network.parameters())
    tight = StageModels(found, budget=int(2.5 * size))
    for name in "abacab":
        assert tight[name].layers == 2
    assert tight.loads == {"a": 1, "b": 2, "c": 1}


def test_names_in_rows_become_checkpoint_coordinates() -> None:
    row = Record("cosine", 0.5, stage="sft:2", n=3, coords={"other_stage": "pretrain", "form": "raw"})
    [made] = stamp_rows([row], select_stages(_tree(), "pretrain,sft:*"))
    assert (made.stage, made.step) == ("sft", 2)
    assert made.coords == {"other_stage": "pretrain", "other_step": "8", "form": "raw"}
