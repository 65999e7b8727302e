"""Lineages from folders and files: trainer checkpoints, other subfolders, single models, stages, invalid input."""

import json
import os
import shutil
from pathlib import Path

import pytest

from ontogeny.errors import BadInput
from ontogeny.lineage import Lineage
from tests.lineage.test_weight_files import model, pickled


def trainer(folder: Path, *numbers: int) -> Path:
    for number in numbers:
        model(folder / f"checkpoint-{number}", seed=number)
    return folder


def steps(lineage: Lineage) -> list[int | None]:
    return [checkpoint.step for checkpoint in lineage.checkpoints]


def test_trainer_folder(tmp_path: Path) -> None:
    trainer(tmp_path, 500, 1000, 20)
    model(tmp_path / "tmp-checkpoint-1500")
    state = {"global_step": 500, "num_input_tokens_seen": 4096}
    (tmp_path / "checkpoint-500" / "trainer_state.json").write_text(json.dumps(state))
    lineage = Lineage.open(tmp_path)
    assert steps(lineage) == [20, 500, 1000]
    assert [c.tokens for c in lineage.checkpoints] == [None, 4096.0, None]
    assert [c.name for c in lineage.checkpoints] == ["checkpoint-20", "checkpoint-500", "checkpoint-1000"]
    assert lineage.name == tmp_path.name
    assert all(c.is_local and c.stage == "pretrain" for c in lineage.checkpoints)
    # A checkpoint that is not whole stays in the list: whoever fetches it hears why.
    (tmp_path / "checkpoint-20" / "model.safetensors").unlink()
    assert steps(Lineage.open(tmp_path)) == [20, 500, 1000]


def test_final_model_is_added_if_it_differs(tmp_path: Path) -> None:
    trainer(tmp_path, 10, 20)
    model(tmp_path, seed=20)
    assert steps(Lineage.open(tmp_path)) == [10, 20]
    model(tmp_path, seed=99)
    assert steps(Lineage.open(tmp_path)) == [10, 20, None]
    (tmp_path / "trainer_state.json").write_text('{"global_step": 25}')
    assert steps(Lineage.open(tmp_path)) == [10, 20, 25]
    # The best of the run, not its end: its step is taken already.
    (tmp_path / "trainer_state.json").write_text('{"global_step": 20}')
    assert steps(Lineage.open(tmp_path)) == [10, 20, None]


def test_other_subfolders(tmp_path: Path) -> None:
    for name in ("step10", "step2", "step0"):
        model(tmp_path / "named" / name)
    assert steps(Lineage.open(tmp_path / "named")) == [0, 2, 10]
    for name in ("qwen3-sft-150", "qwen3-sft-100", "qwen3-sft-1000"):
        model(tmp_path / "suffix" / name)
    assert steps(Lineage.open(tmp_path / "suffix")) == [100, 150, 1000]
    for name in ("late", "early", "middle"):
        model(tmp_path / "words" / name)
    words = Lineage.open(tmp_path / "words")
    assert [(c.name, c.step) for c in words.checkpoints] == [("early", 1), ("late", 2), ("middle", 3)]
    assert "late = 2" in words.notes[0]
    assert "lineage.toml" in words.notes[0]


def folders(top: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        model(top / name, seed=number)
    return top


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("step-500k", "step-1M", "step-1500k"), (500_000, 1_000_000, 1_500_000)),
        (("ckpt-800k", "ckpt-1.2M"), (800_000, 1_200_000)),
        (("0.1M", "0.5M"), (100_000, 500_000)),
        (("tokens-1.5M", "tokens-10M"), (1_500_000, 10_000_000)),
        (("step1,000", "step500"), (500, 1000)),
        (("epoch=0-step=100", "epoch=1-step=50"), (50, 100)),
        (("model_500M", "model_1B", "model_2B"), (500_000_000, 10**9, 2 * 10**9)),
        (("llama2-sft-100", "llama2-sft-20"), (20, 100)),
        (("model10", "model9"), (9, 10)),
        (("step0", "step10"), (0, 10)),
        (("llama2-early", "llama2-late"), (1, 2)),
        (("2024-05-31", "2024-06-01"), (1, 2)),
        (("20240531-a", "20240601-a"), (1, 2)),
        (("20240531", "20240601"), (1, 2)),
        (("1000hf", "2000hf"), (1000, 2000)),
        (("10pct", "50pct", "100pct"), (10, 50, 100)),
        (("step10x", "step20x"), (10, 20)),
        (("a10b0", "a20b0"), (10, 20)),
        (("2024-05-31-step9", "2024-06-01-step10"), (9, 10)),
        (("checkpoint-100", "Checkpoint-50"), (50, 100)),
        (("checkpoint-100", "checkpoint-200-merged"), (100, 200)),
    ],
)
def test_steps_are_whole_numbers_with_their_unit(
    tmp_path: Path, names: tuple[str, ...], expected: tuple[int, ...]
) -> None:
    assert tuple(steps(Lineage.open(folders(tmp_path, *names)))) == expected


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("seed0", "seed1"), "differ in their seed"),
        (("seed1-step100", "seed2-step200"), "differ in their seed"),
        (("run-1", "run-2"), "differ in their run"),
        (("a_lr1", "a_lr2"), "differ in their lr"),
        (("lr1e-4-step100", "lr3e-4-step200"), "differ in their lr"),
        (("1e3", "1e4"), "cannot be read from their names"),
        (("step10", "step20", "init"), "init looks like the model before training"),
        (("step1.5", "step2"), "cannot be read from their names, first step1.5"),
        (("step1_000", "step2_000"), "cannot be read from their names"),
        (("qwen3-a", "llama2-b"), "cannot be read from their names"),
    ],
)
def test_rejects_numbers_that_are_no_steps(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        Lineage.open(folders(tmp_path, *names))
    assert "lineage.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rejects_two_checkpoints_of_one_step(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="checkpoint-100 and checkpoint-0100 have the same"):
        Lineage.open(folders(tmp_path, "checkpoint-100", "checkpoint-0100", "checkpoint-200"))


def test_untrained_model_that_repeats_step_0_is_left_out(tmp_path: Path) -> None:
    trainer(tmp_path, 0, 10)
    shutil.copytree(tmp_path / "checkpoint-0", tmp_path / "init")
    assert steps(Lineage.open(tmp_path)) == [0, 10]
    model(tmp_path / "random_init", seed=77)
    with pytest.raises(BadInput, match="rename it to checkpoint-0"):
        Lineage.open(tmp_path)


def test_rejects_models_of_different_sizes_as_steps(tmp_path: Path) -> None:
    folders(tmp_path, "model_500M", "model_1B")
    (tmp_path / "model_1B" / "config.json").write_text('{"model_type": "gpt_neox", "hidden_size": 2048}')
    with pytest.raises(BadInput, match="different sizes"):
        Lineage.open(tmp_path)


@pytest.mark.parametrize("word", ["final", "best", "merged", "last"])
def test_a_word_is_placed_after_the_steps(tmp_path: Path, word: str) -> None:
    lineage = Lineage.open(folders(tmp_path, "step308", "step1000", word))
    assert [(c.name, c.step) for c in lineage.checkpoints] == [("step308", 308), ("step1000", 1000), (word, None)]
    assert f"{word} has no step" in lineage.notes[0]
    model(tmp_path / word, seed=0)
    lineage = Lineage.open(tmp_path)
    assert steps(lineage) == [308, 1000]
    assert f"{word} holds the weights of step308" in lineage.notes[0]


@pytest.mark.parametrize("name", ["final", "checkpoint-20-merged", "best_model"])
def test_models_beside_the_checkpoints_of_a_trainer_come_last(tmp_path: Path, name: str) -> None:
    trainer(tmp_path, 10, 20)
    model(tmp_path / name, seed=99)
    lineage = Lineage.open(tmp_path)
    assert [(c.name, c.step) for c in lineage.checkpoints] == [
        ("checkpoint-10", 10),
        ("checkpoint-20", 20),
        (name, None),
    ]
    assert f"{name} has no step and is placed after the last one" in lineage.notes
    model(tmp_path / name, seed=10)
    assert f"{name} holds the weights of checkpoint-10 and is left out" in Lineage.open(tmp_path).notes


def test_a_run_beside_the_checkpoints_of_a_trainer_is_said(tmp_path: Path) -> None:
    trainer(tmp_path, 10, 20)
    trainer(tmp_path / "dpo", 5)
    lineage = Lineage.open(tmp_path)
    assert steps(lineage) == [10, 20]
    assert "dpo beside the checkpoints holds a run of its own and is left out" in lineage.notes


@pytest.mark.parametrize("best", [10, 20, 30])
def test_a_model_on_top_may_be_any_checkpoint(tmp_path: Path, best: int) -> None:
    trainer(tmp_path, 10, 20, 30)
    model(tmp_path, seed=best)
    lineage = Lineage.open(tmp_path)
    assert steps(lineage) == [10, 20, 30]
    assert [f"checkpoint-{best}" in note for note in lineage.notes] == ([] if best == 30 else [True])


def test_links_keep_their_own_names(tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    for number in (156, 308):
        model(tmp_path / "store" / str(number) / "model", seed=number)
        (tmp_path / "links" / f"step{number}").symlink_to(tmp_path / "store" / str(number) / "model")
    assert [c.name for c in Lineage.open(tmp_path / "links").checkpoints] == ["step156", "step308"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("dpo", "pretrain", "sft"), {"pretrain": None, "sft": "pretrain", "dpo": "sft"}),
        (("my-base", "my-sft-v2"), {"my-base": None, "my-sft-v2": "my-base"}),
        (("1_warm", "2_cool", "10_end"), {"1_warm": None, "2_cool": "1_warm", "10_end": "2_cool"}),
        (("stage1", "stage2"), {"stage1": None, "stage2": "stage1"}),
        (("seed0", "seed1"), {"seed0": None, "seed1": None}),
    ],
)
def test_project_folder_is_a_lineage_of_stages(
    tmp_path: Path, names: tuple[str, ...], expected: dict[str, str | None]
) -> None:
    for name in names:
        trainer(tmp_path / name, 10, 20)
    (tmp_path / "logs").mkdir()
    lineage = Lineage.open(tmp_path)
    assert {s.name: s.parent for s in lineage.stages} == expected
    assert [s.name for s in lineage.stages] == list(expected)
    assert steps(lineage) == [10, 20] * len(names)
    assert all(c.train_seed == (int(c.stage[-1]) if "seed" in c.stage else None) for c in lineage.checkpoints)


@pytest.mark.parametrize("names", [("stage1", "stage2"), ("phase-1", "phase-2_anneal", "phase-10")])
def test_models_that_are_numbered_as_stages_are_stages(tmp_path: Path, names: tuple[str, ...]) -> None:
    lineage = Lineage.open(folders(tmp_path, *names))
    assert [s.name for s in lineage.stages] == list(names)
    assert [s.parent for s in lineage.stages] == [None, *names[:-1]]


def test_project_folder_holds_models_and_runs_in_any_layout(tmp_path: Path) -> None:
    model(tmp_path / "base")
    folders(tmp_path / "sft", "step10", "step20")
    trainer(tmp_path / "dpo", 5)
    model(tmp_path / "dpo", seed=77)
    lineage = Lineage.open(tmp_path)
    assert [(c.stage, c.step) for c in lineage.checkpoints] == [
        ("base", None),
        ("sft", 10),
        ("sft", 20),
        ("dpo", 5),
        ("dpo", None),
    ]
    for name in ("sft", "dpo"):  # single models are stages too, by their names
        shutil.rmtree(tmp_path / name)
        model(tmp_path / name, seed=3)
    assert [s.name for s in Lineage.open(tmp_path).stages] == ["base", "sft", "dpo"]


@pytest.mark.parametrize("names", [("alpha", "beta"), ("sft-a", "sft-b"), ("base", "other")])
def test_unclear_project_folder_shows_the_lineage_file_it_needs(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        trainer(tmp_path / name, 1)
    with pytest.raises(BadInput, match=r"whose order is not clear .* write .*lineage\.toml") as caught:
        Lineage.open(tmp_path)
    (tmp_path / "lineage.toml").write_text(str(caught.value).split("order: ")[1].removesuffix("."))
    assert [s.name for s in Lineage.open(tmp_path).stages] == list(names)


def test_rejects_two_folders_of_one_step(tmp_path: Path) -> None:
    for name in ("a-step100", "b-step100"):
        model(tmp_path / name)
    with pytest.raises(BadInput, match=r"a-step100 and b-step100 both have step 100"):
        Lineage.open(tmp_path)


def test_single_model(tmp_path: Path) -> None:
    model(tmp_path / "m")
    lineage = Lineage.open(tmp_path / "m", stage="sft")
    assert [(c.name, c.step, c.stage) for c in lineage.checkpoints] == [("m", None, "sft")]
    pickled(tmp_path / "m")
    with pytest.raises(BadInput, match="`allow_pickle`"):
        Lineage.open(tmp_path / "m")
    assert len(Lineage.open(tmp_path / "m", allow_pickle=True).checkpoints) == 1


def test_folder_takes_precedence_over_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer(tmp_path / "EleutherAI" / "pythia-160m", 5)
    monkeypatch.chdir(tmp_path)
    assert steps(Lineage.open("EleutherAI/pythia-160m")) == [5]


def test_name_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    lineage = Lineage.open(".")
    assert (lineage.name, lineage.checkpoints[0].name) == ("here", "here")


def test_rejects_invalid_sources(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "sub").mkdir(parents=True)
    (tmp_path / "note.txt").touch()
    model(tmp_path / "half")
    (tmp_path / "half" / "config.json").unlink()
    for source, words in {
        tmp_path / "empty": "is empty",
        tmp_path / "other": r"holds no model \(it holds sub\)",
        tmp_path / "note.txt": "is a file",
        tmp_path / "half": "has no config.json",
        tmp_path / "gone": "there is no folder",
        tmp_path / "gone.toml": "there is no file",
        Path("./a/b/c"): "there is no folder",
    }.items():
        with pytest.raises(BadInput, match=words) as caught:
            Lineage.open(source)
        assert "\n" not in str(caught.value)


def test_stages_form_a_tree(tmp_path: Path) -> None:
    for name in ("base", "sft", "dpo", "other"):
        trainer(tmp_path / name, 1, 2)
    lineage = (
        Lineage.open(tmp_path / "base")
        .with_stage("sft", tmp_path / "sft")
        .with_stage("dpo", tmp_path / "dpo")
        .with_stage("other", tmp_path / "other", parent="pretrain")
        .with_stage("seed1", tmp_path / "other", parent="")
    )
    parents = {s.name: s.parent for s in lineage.stages}
    assert parents == {"pretrain": None, "sft": "pretrain", "dpo": "sft", "other": "pretrain", "seed1": None}
    assert [c.stage for c in lineage.checkpoints[::2]] == ["pretrain", "sft", "dpo", "other", "seed1"]
    with pytest.raises(BadInput, match="has a stage 'sft' already"):
        lineage.with_stage("sft", tmp_path / "sft")
    with pytest.raises(BadInput, match=r"did you mean '?sft"):
        lineage.with_stage("x", tmp_path / "sft", parent="stf")


TOML = """
name = "demo"
[[stages]]
name = "pretrain"
source = "base"
steps = "last"
train_seed = 7
[[stages]]
name = "sft"
source = "sft"
[[stages]]
name = "safe"
source = "sft"
parent = "pretrain"
"""


def test_lineage_file(tmp_path: Path) -> None:
    trainer(tmp_path / "run" / "base", 1, 2)
    trainer(tmp_path / "run" / "sft", 3)
    (tmp_path / "run" / "lineage.toml").write_text(TOML, encoding="utf-8-sig")  # as Notepad saves it
    here = os.getcwd()
    for source in (tmp_path / "run", tmp_path / "run" / "lineage.toml", str(tmp_path / "run")):
        lineage = Lineage.open(source)
        assert lineage.name == "demo"
        assert [(s.name, s.parent) for s in lineage.stages] == [
            ("pretrain", None),
            ("sft", "pretrain"),
            ("safe", "pretrain"),
        ]
        assert [(c.stage, c.step, c.train_seed) for c in lineage.checkpoints] == [
            ("pretrain", 2, 7),
            ("sft", 3, None),
            ("safe", 3, None),
        ]
    assert os.getcwd() == here


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "cannot be read"),
        ("", "has no stages"),
        ("stages = 3", "has no stages"),
        ("stage = []", "did you mean '?stages"),
        ("name = 3\n[[stages]]\nname='a'\nsource='base'", "name must be a text"),
        ("[[stages]]\nsource = 'base'", "stage 1 has no name"),
        ("[[stages]]\nname = 'a'", "stage 1 has no source"),
        ("[[stages]]\nname = 'a'\nsource = 'base'\nparnet = 'b'", "did you mean '?parent"),
        ("[[stages]]\nname = 'a'\nsource = 'base'\ntrain_seed = 'x'", "must be a whole number"),
        ("[[stages]]\nname = 'a'\nsource = 'base'\ntrain_seed = true", "must be a whole number"),
        ("[[stages]]\nname = 'a'\nsource = 3", "source must be a text"),
        ("[[stages]]\nname = 'a'\nsource = './gone'", "there is no folder"),
        ("[[stages]]\nname = 'a'\nsource = 'base'\nsteps = '7'", "no checkpoint 'checkpoint-7' in"),
        ("[[stages]]\nname = 'a'\nsource = 'base'\nparent = 'b'", "no stage called 'b'"),
        ("[[stages]]\nname = 'a'\nsource = 'base'\n[[stages]]\nname = 'a'\nsource = 'base'", "stage 'a' already"),
    ],
)
def test_rejects_invalid_lineage_file(tmp_path: Path, text: str, words: str) -> None:
    trainer(tmp_path / "base", 1)
    (tmp_path / "lineage.toml").write_text(text)
    with pytest.raises(BadInput, match=words) as caught:
        Lineage.open(tmp_path / "lineage.toml")
    assert "\n" not in str(caught.value)


def test_rejects_binary_lineage_file(tmp_path: Path) -> None:
    (tmp_path / "lineage.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="cannot be read"):
        Lineage.open(tmp_path)
