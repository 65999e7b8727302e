"""The Hub against a local stand-in: branches become checkpoints, downloads, offline use, errors, deletion after use."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.helpers.fake_hub import Hub, commit

PYTHIA = "EleutherAI/pythia-14m"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny) -> list[Path]:
    """Four states of a tiny GPT-NeoX, with files that must not be downloaded."""
    top = tmp_path_factory.mktemp("models")
    folders = []
    for seed in range(4):
        folder = Path(shutil.copytree(tiny("gpt_neox", seed=seed), top / str(seed)))
        (folder / "README.md").write_text("a model card")
        (folder / "modeling_evil.py").write_text("raise SystemExit")
        (folder / "training_args.bin").write_bytes(b"pickle")
        (folder / "pytorch_model.bin").write_bytes(b"pickle" * 10)
        folders.append(folder)
    return folders


@pytest.fixture
def hub(tmp_path: Path, models: list[Path]):
    with Hub(tmp_path / "home") as hub:
        for step, folder in zip((0, 1, 512, 1000), models, strict=True):
            hub.add(PYTHIA, f"step{step}", folder)
        hub.add(PYTHIA, "main", models[3])
        yield hub


def weights_sent(hub: Hub) -> int:
    return hub.sent.get("model.safetensors", 0)


def test_branches_become_a_lineage(hub: Hub, models: list[Path]) -> None:
    hub.add(PYTHIA, "dev", models[0])
    rows = hub.run(f"""
        lineage = Lineage.open("{PYTHIA}")
        show([[c.source, c.name, c.stage, c.step, c.tokens, c.train_seed, c.commit] for c in lineage.checkpoints])
    """)
    assert rows == [
        [PYTHIA, f"step{step}", "pretrain", step, step * 2_097_152.0, 0, commit(folder)]
        for step, folder in zip((0, 1, 512, 1000), models, strict=True)
    ]
    assert [path for _, path in hub.requests] == [f"/api/models/{PYTHIA}/refs"]


def test_fetched_checkpoint_loads_and_only_needed_files_are_downloaded(hub: Hub, models: list[Path]) -> None:
    folder = Path(hub.run(f"show(str(fetch_checkpoint(Lineage.open('{PYTHIA}').select('512').checkpoints[0])))"))
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert set(hub.sent) == set(names)
    assert weights_sent(hub) == (models[2] / "model.safetensors").stat().st_size
    got, truth = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (folder, models[2]))
    assert all(torch.equal(got[name], truth[name]) for name in truth)
    assert len(AutoTokenizer.from_pretrained(folder)("some text").input_ids) == 9


def test_complete_checkpoint_in_the_cache_needs_no_network(hub: Hub) -> None:
    first = hub.run(f"""
        checkpoint = Lineage.open("{PYTHIA}").checkpoints[1]
        before = weight_fingerprint(checkpoint), weight_bytes(checkpoint)
        folder = fetch_checkpoint(checkpoint)
        assert before == (weight_fingerprint(checkpoint), weight_bytes(checkpoint)), "the download changes neither"
        show([str(folder), *before])
    """)
    requests, sent = len(hub.requests), weights_sent(hub)
    code = f"""
        lineage = Lineage.open("{PYTHIA}", offline=OFFLINE)
        checkpoint = lineage.checkpoints[0]
        folder, steps = fetch_checkpoint(checkpoint), [c.step for c in lineage.checkpoints]
        show([str(folder), weight_fingerprint(checkpoint), weight_bytes(checkpoint), steps])
    """
    assert hub.run(code.replace("OFFLINE", "False"), HF_HUB_OFFLINE="1") == [*first, [1]]
    assert hub.run(code.replace("OFFLINE", "True"), HF_ENDPOINT="http://127.0.0.1:9") == [*first, [1]]
    assert (len(hub.requests), weights_sent(hub)) == (requests, sent)


def test_interrupted_download_is_completed(hub: Hub) -> None:
    parts = hub.run(f"""
        checkpoint = Lineage.open("{PYTHIA}").checkpoints[0]
        folder = fetch_checkpoint(checkpoint)
        (folder / "model.safetensors").resolve().unlink()
        (folder / "model.safetensors").unlink()
        show(sorted(p.name for p in fetch_checkpoint(checkpoint).iterdir()))
    """)
    assert "model.safetensors" in parts


def test_sizes_and_fingerprints_need_no_download(hub: Hub, models: list[Path]) -> None:
    # As on the real Hub, where many steps of one Pythia have the weights of the last.
    twin = Path(shutil.copytree(models[3], models[3].parent / "twin"))
    (twin / "config.json").write_text(json.dumps({**json.loads((twin / "config.json").read_text()), "note": 1}))
    hub.add(PYTHIA, "step2", twin)
    bytes_, prints = hub.run(f"""
        checkpoints = Lineage.open("{PYTHIA}").checkpoints
        show([[weight_bytes(c) for c in checkpoints], {{c.name: weight_fingerprint(c) for c in checkpoints}}])
    """)
    shutil.rmtree(twin)
    assert bytes_ == [(models[0] / "model.safetensors").stat().st_size] * 5
    assert prints["step2"] == prints["step1000"]
    assert len(set(prints.values())) == 4
    assert hub.sent == {}
    # One request for the branches, one for each commit.
    assert len(hub.requests) == 1 + 5


def test_damaged_checkpoints_are_reported_before_the_download(hub: Hub, models: list[Path], tmp_path: Path) -> None:
    shapes = {
        "step1": ("model.safetensors", "pytorch_model.bin"),
        "step2": ("config.json",),
        "step3": ("model.safetensors",),
    }
    for branch, missing in shapes.items():
        folder = Path(shutil.copytree(models[0], tmp_path / branch))
        for name in missing:
            (folder / name).unlink()
        hub.add("me/run", branch, folder)
    shards = tmp_path / "step3"
    (shards / "pytorch_model.bin").unlink()
    (shards / "model.safetensors.index.json").write_text("{}")
    (shards / "model-00001-of-00003.safetensors").write_bytes(b"x")
    pickle = Path(shutil.copytree(models[0], tmp_path / "step4"))
    (pickle / "model.safetensors").unlink()
    hub.add("me/run", "step4", pickle)
    messages = hub.run("""
        messages = []
        for checkpoint in Lineage.open("me/run").checkpoints:
            try: checkpoint_files(checkpoint)
            except CheckpointError as error: messages.append(str(error))
        show(messages)
    """)
    assert len(messages) == 4
    for words, line in zip(
        ("me/run at step1 has no weights", "no config.json", "1 of its 3 weight shards", "`allow_pickle`"),
        messages,
        strict=True,
    ):
        assert words in line
        assert "\n" not in line
    assert hub.sent == {}
    names = hub.run("""
        show(sorted(p.name for p in fetch_checkpoint(Lineage.open("me/run").checkpoints[-1], allow_pickle=True).iterdir()))
    """)
    assert "pytorch_model.bin" in names
    assert "training_args.bin" not in names


def test_delete_behind_removes_only_its_own_downloads(hub: Hub) -> None:
    counts, left = hub.run(f"""
        checkpoints = Lineage.open("{PYTHIA}").checkpoints
        before = fetch_checkpoint(checkpoints[2])
        counts = []
        for checkpoint, folder in prefetch_checkpoints(checkpoints, delete_behind=True):
            present = [c.step for c in checkpoints if (before.parent / c.commit / "model.safetensors").exists()]
            assert checkpoint.step in present, "the one in use is present"
            counts.append([checkpoint.step, len(set(present) - {{512}})])
        left = [c.step for c in checkpoints if (before.parent / c.commit).exists()]
        assert (before / "model.safetensors").stat().st_size == weight_bytes(checkpoints[2])
        show([counts, left])
    """)
    assert [step for step, _ in counts] == [0, 1, 512, 1000]
    assert all(count <= 2 for _, count in counts)
    assert left == [512]
    assert hub.run(f"show([c.step for c in Lineage.open('{PYTHIA}', offline=True).checkpoints])") == [512]


def test_prefetching_yields_errors_and_continues(hub: Hub, models: list[Path], tmp_path: Path) -> None:
    empty = Path(shutil.copytree(models[0], tmp_path / "empty"))
    for name in ("model.safetensors", "pytorch_model.bin"):
        (empty / name).unlink()
    hub.add(PYTHIA, "step2", empty)
    kinds = hub.run(f"""
        from dataclasses import replace
        checkpoints = list(Lineage.open("{PYTHIA}").checkpoints)
        checkpoints.append(replace(checkpoints[0], revision="step7", commit=None))
        show([[c.step, type(o).__name__, str(o)] for c, o in prefetch_checkpoints(checkpoints)])
    """)
    assert [kind == "PosixPath" for _, kind, _ in kinds] == [True, True, False, True, True, False]
    assert "has no weights" in kinds[2][2]
    assert "no revision 'step7'" in kinds[5][2]


def errors(hub: Hub, *lines: str, **environment: str) -> list[str]:
    """Error message of each line; all lines run in one process."""
    code = "messages = []\n"
    for line in lines:
        code += f"try:\n    {line}\n    messages.append('no error')\nexcept BadInput as error:\n    messages.append(str(error))\n"
    messages = hub.run(code + "show(messages)", **environment)
    assert all("\n" not in line and "Traceback" not in line for line in messages)
    return messages


def test_errors_are_one_line(hub: Hub, models: list[Path]) -> None:
    hub.add("meta/gated", "main", models[0])
    hub.gated.add("meta/gated")
    hub.add("me/ill", "main", models[0])
    hub.broken.add("me/ill")
    cases = {
        "Lineage.open('nobody/nothing')": "no public Hub repository 'nobody/nothing'",
        "fetch_checkpoint(Lineage.open('meta/gated').checkpoints[0])": "meta/gated is gated: .* `hf auth login`",
        f"fetch_checkpoint(Checkpoint('{PYTHIA}', 'step3'))": "has no revision 'step3'",
        f"checkpoint_files(Checkpoint('{PYTHIA}', 'step3'))": "has no revision 'step3'",
        f"Lineage.open('{PYTHIA}').select('700')": "no checkpoint 'step700' .* step512 and step1000",
        "Lineage.open('me/ill')": "the Hub answered 500 for me/ill",
        "Lineage.open('a/b/c')": "there is no folder a/b/c",
        f"Lineage.open('{PYTHIA}').with_stage('sft', 'nobody/nothing')": "no public Hub repository 'nobody/nothing'",
    }
    for words, line in zip(cases.values(), errors(hub, *cases), strict=True):
        assert re.search(words, line)


def test_missing_network_is_reported_quickly(hub: Hub) -> None:
    begin = time.perf_counter()
    listing, fetching = f"Lineage.open('{PYTHIA}')", f"fetch_checkpoint(Checkpoint('{PYTHIA}', 'step0'))"
    unreachable = errors(hub, listing, fetching, HF_ENDPOINT="http://127.0.0.1:9")
    assert "branches of EleutherAI/pythia-14m cannot be listed" in unreachable[0]
    assert "step0 is not in the local cache" in unreachable[1]
    for line in errors(hub, listing, f"Lineage.open('{PYTHIA}', offline=True)", fetching, HF_HUB_OFFLINE="1"):
        assert "in the local cache" in line
    assert hub.requests == []
    assert time.perf_counter() - begin < 30


def test_unusable_cache_folder_is_one_line(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("in the way")
    [line] = errors(hub, f"fetch_checkpoint(Lineage.open('{PYTHIA}').checkpoints[0])")
    assert "could not be fetched" in line


def test_general_repositories(hub: Hub, models: list[Path]) -> None:
    hub.add("me/plain", "main", models[0])
    hub.add("me/run", "checkpoint-10", models[0])
    hub.add("me/run", "checkpoint-9", models[1])
    hub.add("me/run", "main", models[2])
    hub.add("me/same", "step1", models[0])
    hub.add("me/same", "main", models[0])
    hub.add("me/tags", "v5-step5", models[0], tag=True)
    hub.add("me/tags", "main", models[0])
    shown = hub.run("""
        names = {}
        for source in ("me/plain", "me/run", "me/same", "me/tags"):
            lineage = Lineage.open(source)
            names[source] = [[c.name, c.step] for c in lineage.checkpoints] + list(lineage.notes)
        show(names)
    """)
    assert shown["me/plain"] == [["main", None]]
    assert shown["me/run"][:3] == [["checkpoint-9", 9], ["checkpoint-10", 10], ["main", None]]
    assert shown["me/same"] == [["step1", 1], "main is step1"]
    assert shown["me/tags"][0] == ["v5-step5", 5]


def test_stages_and_siblings_of_olmo(hub: Hub, models: list[Path]) -> None:
    olmo = "allenai/OLMo-2-0425-1B"
    branches = [
        "stage1-step1000-tokens3B",
        "stage1-step0-tokens0B",
        "stage2-ingredient2-step10-tokens1B",
        "stage2-ingredient1-step10-tokens1B",
    ]
    for branch, folder in zip(branches, (models[0], models[1], models[0], models[1]), strict=True):
        hub.add(olmo, branch, folder)
    hub.add(olmo, "main", models[2])
    shown = hub.run(f"""
        lineage = Lineage.open("{olmo}")
        show([[s.name, s.parent, [c.step for c in s.checkpoints]] for s in lineage.stages])
    """)
    assert shown == [
        ["pretrain", None, [0, 1000]],
        ["stage2-ingredient2", "pretrain", [10]],
        ["stage2-ingredient1", "pretrain", [10]],
        ["main", "pretrain", [None]],
    ]


def test_lineage_of_repository_and_folder(hub: Hub, models: list[Path], tmp_path: Path) -> None:
    shutil.copytree(models[1], tmp_path / "run" / "sft" / "checkpoint-30")
    (tmp_path / "run" / "lineage.toml").write_text(
        f'[[stages]]\nname = "pretrain"\nsource = "{PYTHIA}"\nsteps = "0,1000"\n[[stages]]\nname = "sft"\nsource = "sft"\n'
    )
    shown = hub.run(f"""
        lineage = Lineage.open(r"{tmp_path / "run"}")
        show([[c.stage, c.step, o.is_dir()] for c, o in prefetch_checkpoints(lineage.checkpoints)])
    """)
    assert shown == [["pretrain", 0, True], ["pretrain", 1000, True], ["sft", 30, True]]
