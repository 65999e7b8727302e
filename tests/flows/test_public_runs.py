"""Each packaged run opens by its name, with all stages, parents, steps and tokens right, from the branches as they are published."""

import json
import shutil
from pathlib import Path

import pytest

from ontogeny.lineage.manifest import load_manifest, packaged_manifests
from tests.helpers.fake_hub import Hub

OLMO3, OLMO2 = "allenai/Olmo-3-1025-7B", "allenai/OLMo-2-0425-1B"
OLMO3_BRANCHES = [
    *(f"stage1-step{step}" for step in (0, 1000, 2000, 1413000, 1413814)),
    *(f"stage2-step{step}" for step in (1000, 47684)),
    "stage2-step47684-mix-round5-from-2T-ckpt",
    *(f"stage3-step{step}" for step in (1000, 11921)),
    "main",
]
PYTHIA_STEPS = [0, *(2**k for k in range(10)), *range(1000, 144_000, 1000)]
PUBLISHED: dict[str, list[str]] = {
    OLMO3: OLMO3_BRANCHES,
    "allenai/Olmo-3-7B-Think-SFT": [*(f"step{step}" for step in range(1000, 44_000, 1000)), "main"],
    "allenai/Olmo-3-7B-Think-DPO": ["main"],
    "allenai/Olmo-3-7B-Think": [*(f"step_{step:04}" for step in range(25, 1400, 25)), "main"],
    "allenai/Olmo-3-7B-Instruct-SFT": ["main"],
    "allenai/Olmo-3-7B-Instruct-DPO": ["main"],
    "allenai/Olmo-3-7B-Instruct": [*(f"step_{step:03}" for step in range(50, 450, 50)), "main"],
    "allenai/OLMo-2-0425-1B-early-training": [
        *(f"stage1-step{step}-tokens{tokens}B" for step, tokens in ((0, 0), (1000, 3), (2000, 5), (5000, 11))),
        "stage1-step37000-tokens77B",
        "main",
    ],
    OLMO2: [
        "stage1-step40000-tokens84B",
        "stage1-step1907359-tokens4001B",
        *(f"stage2-ingredient{k}-step23852-tokens51B" for k in (1, 2, 3)),
        "main",
    ],
    "marin-community/marin-8b-base": [
        "deeper-starling",
        "jellyfish",
        "kestrel",
        "main",
        "ocelot",
        "phoenix",
        "starling",
    ],
    "HuggingFaceTB/SmolLM3-3B-checkpoints": [
        "main",
        "stage1-step-40000",
        "stage2-step-3520000",
        "stage3-step-4720000",
        "lc-4k-to-32k-step-4000",
        "lc-32k-to-64k-step-4000",
        "it-mid-training",
        "it-SFT",
        "it-LC-expert",
        "it-soup-APO",
    ],
    **{
        f"allenai/Olmo-3-7B-RL-Zero-{kind}": [*(f"step_{step}" for step in range(100, 2000, 100)), "main"]
        for kind in ("Math", "Code", "IF", "General", "Mix")
    },
    **{
        f"HuggingFaceTB/SmolLM2-{size}-intermediate-checkpoints": [f"step-{every}", f"step-{2 * every}", "main"]
        for size, every in (("135M", 125_000), ("360M", 160_000), ("1.7B", 125_000))
    },
    **{
        f"EleutherAI/pythia-160m{seed}": [*(f"step{step}" for step in PYTHIA_STEPS), "main"]
        for seed in ("", *(f"-seed{k}" for k in range(1, 10)))
    },
    **{
        f"sbordt/OLMo-2-{size}-{exposed}{stage}": [*branches, "main"]
        for size in ("179M", "546M", "1B", "2.7B")
        for exposed in ("Exp-", "")
        for stage, branches in (
            ("Mid", [f"stage2-step{step}" for step in range(1000, 12_000, 1000)]),
            (
                "Unlearning",
                [
                    "stage1-step100000-tokens210B",
                    "stage1-step102000",
                    "stage1-step110000",
                    "step110000-unsharded",
                ],
            ),
        )
    },
}
BASE = {
    "pretrain": (None, [0, 1000, 2000, 1413000, 1413814]),
    "midtrain": ("pretrain", [1000, 47684]),
    "longcontext": ("midtrain", [1000, 11921]),
}
SFT = list(range(1000, 44_000, 1000))
EXPECTED: dict[str, dict[str, tuple[str | None, list[int | None]]]] = {
    "olmo3-7b-think": {
        **BASE,
        "sft": ("longcontext", SFT),
        "dpo": ("sft", [None]),
        "rl": ("dpo", list(range(25, 1400, 25))),
    },
    "olmo3-7b-instruct": {
        **BASE,
        "think-sft": ("longcontext", SFT),
        "sft": ("think-sft", [None]),
        "dpo": ("sft", [None]),
        "rl": ("dpo", list(range(50, 450, 50))),
    },
    **{
        f"olmo3-7b-rlzero-{kind}": {**BASE, "rl": ("longcontext", list(range(100, 2000, 100)))}
        for kind in ("math", "code", "if", "general", "mix")
    },
    "olmo2-1b-early": {
        "pretrain": (None, [0, 1000, 2000, 5000, 37_000]),
        "later": ("pretrain", [40_000, 1_907_359]),
        "anneal": ("later", [23_852]),
        "soup": ("later", [None]),
    },
    "marin-8b": {"pretrain": (None, [1, 2, 3, 4, 5, 6])},
    "pythia-160m-seeds": {f"seed{k}": (None, PYTHIA_STEPS) for k in range(10)},
    "smollm2-135m": {"pretrain": (None, [125_000, 250_000])},
    "smollm2-360m": {"pretrain": (None, [160_000, 320_000])},
    "smollm2-1.7b": {"pretrain": (None, [125_000, 250_000])},
    "smollm3-3b": {
        "stage1": (None, [40_000]),
        "stage1/stage2": ("stage1", [3_520_000]),
        "stage1/stage3": ("stage1/stage2", [4_720_000]),
        "stage1/lc-4k-to-32k": ("stage1/stage3", [4000]),
        "stage1/lc-32k-to-64k": ("stage1/lc-4k-to-32k", [4000]),
        "stage1/it-mid-training": ("stage1/lc-32k-to-64k", [None]),
        "stage1/it-SFT": ("stage1/it-mid-training", [None]),
        "stage1/it-LC-expert": ("stage1/it-SFT", [None]),
        "stage1/it-soup-APO": ("stage1/it-SFT", [None]),
    },
    **{
        f"sbordt-{size}-{exposed}mid": {"midtrain": (None, list(range(1000, 12_000, 1000)))}
        for size in ("179m", "546m", "1b", "2.7b")
        for exposed in ("exp-", "")
    },
    **{
        f"sbordt-{size}-{exposed}unlearning": {"pretrain": (None, [100_000, 102_000, 110_000])}
        for size in ("179m", "546m", "1b", "2.7b")
        for exposed in ("exp-", "")
    },
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, tiny):
    top = tmp_path_factory.mktemp("published")
    bare = top / "bare"  # names of branches are read without the weights
    bare.mkdir()
    shutil.copy(Path(tiny("gpt_neox")) / "config.json", bare)
    with Hub(top / "home") as hub:
        for repository, branches in PUBLISHED.items():
            for branch in branches:
                hub.add(repository, branch, bare)
        series = top / "series"
        for step in (100, 200):
            shutil.copytree(tiny("gpt_neox", seed=step // 100), series / "run-a" / f"step-{step:04}")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            for folder in (series / "run-a").iterdir():
                (folder / name).unlink()
            shutil.copy(Path(tiny("gpt_neox")) / name, series / name)
        hub.add("someone/olmo2-traj", "main", series)
        yield hub


@pytest.fixture(scope="module")
def opened(hub: Hub) -> dict:
    return hub.run(f"""
        rows = {{}}
        for name in {sorted(packaged_manifests())}:
            lineage = Lineage.open(name)
            rows[name] = {{
                "notes": lineage.notes,
                "stages": {{
                    s.name: [s.parent, s.off_trajectory, [
                        [c.name, c.step, c.tokens, c.train_seed, c.off_trajectory] for c in s.checkpoints
                    ]]
                    for s in lineage.stages
                }},
            }}
        show(rows)
    """)


def test_all_packaged_runs_are_expected_here(opened: dict) -> None:
    assert set(EXPECTED) == set(opened) == set(packaged_manifests())


@pytest.mark.parametrize("name", EXPECTED)
def test_name_opens_the_run_with_all_its_stages(name: str, opened: dict) -> None:
    found = {
        stage: (parent, [step for _, step, *_ in rows]) for stage, (parent, _, rows) in opened[name]["stages"].items()
    }
    assert found == EXPECTED[name]


def _rows(opened: dict, name: str, stage: str) -> dict:
    return {row[0]: row[1:] for row in opened[name]["stages"][stage][2]}


def test_tokens_seeds_and_places_off_the_path_are_right(opened: dict) -> None:
    early = _rows(opened, "olmo2-1b-early", "pretrain")
    assert early["stage1-step1000-tokens3B"][1] == 3e9
    assert early["stage1-step37000-tokens77B"][1] == 77e9
    for size, tokens in (("135m", 125_000 * 2_097_152), ("360m", 160_000 * 1_572_864), ("1.7b", 125_000 * 2_097_152)):
        assert next(iter(_rows(opened, f"smollm2-{size}", "pretrain").values()))[1] == tokens
    assert [name for name in _rows(opened, "marin-8b", "pretrain")] == [
        "kestrel",
        "ocelot",
        "jellyfish",
        "phoenix",
        "starling",
        "deeper-starling",
    ]
    for seed in range(10):
        assert {row[2] for row in _rows(opened, "pythia-160m-seeds", f"seed{seed}").values()} == {seed}
    unlearning = _rows(opened, "sbordt-1b-exp-unlearning", "pretrain")
    assert unlearning["stage1-step100000-tokens210B"] == [100_000, 210e9, None, "annealed"]
    assert unlearning["stage1-step110000"][3] == ""
    assert opened["olmo2-1b-early"]["stages"]["soup"][1] == "averaged"
    assert _rows(opened, "smollm3-3b", "stage1/it-soup-APO")["it-soup-APO"][3] == "averaged"


def test_traps_and_what_was_not_verified_are_notes(opened: dict) -> None:
    think = " ".join(opened["olmo3-7b-think"]["notes"])
    assert "no chat template" in think
    assert "weights twice" in think
    assert "is not verified" not in think
    assert "rl is not verified: the names of its branches" in " ".join(opened["olmo3-7b-rlzero-code"]["notes"])


def test_audit_names_annealed_and_averaged_checkpoints(hub: Hub) -> None:
    kinds = hub.run("""
        from ontogeny.jobs.audit.audit import audit
        found = audit("sbordt-179m-unlearning").findings + audit(Lineage.open("olmo2-1b-early").select("soup=all;later=last")).findings
        show([[f.checkpoints, f.what] for f in found if f.kind == "off_trajectory"])
    """)
    assert [names for names, _ in kinds] == [["stage1-step100000-tokens210B"], ["soup main"]]
    assert "learning rate was taken down" in kinds[0][1]
    assert "average" in kinds[1][1]


def test_folders_of_one_revision_are_checkpoints(hub: Hub, tmp_path: Path, tiny) -> None:
    (tmp_path / "lineage.toml").write_text(
        'name = "traj"\n[[stages]]\nname = "rl"\nsource = "someone/olmo2-traj"\npath = \'run-a/step-(?P<step>\\d+)\'\n'
    )
    rows, second, folder, tokenizer, size, offline = hub.run(f"""
        from ontogeny.models.loading import nearest_tokenizer
        lineage = Lineage.open("{tmp_path / "lineage.toml"}")
        chosen = lineage.checkpoints[1]
        print_both = weight_fingerprint(lineage.checkpoints[0]) == weight_fingerprint(chosen)
        folder = fetch_checkpoint(chosen)
        show([
            [[c.name, c.step, c.revision, c.subfolder] for c in lineage.checkpoints],
            print_both, str(folder), str(nearest_tokenizer(folder)), weight_bytes(chosen),
            str(fetch_checkpoint(chosen)) == str(folder),
        ])
    """)
    assert rows == [
        ["run-a/step-0100", 100, "main", "run-a/step-0100"],
        ["run-a/step-0200", 200, "main", "run-a/step-0200"],
    ]
    assert second is False  # other weights
    assert offline
    assert (Path(folder) / "model.safetensors").read_bytes() == (
        Path(tiny("gpt_neox", seed=2)) / "model.safetensors"
    ).read_bytes()
    assert not (Path(folder).parent / "step-0100" / "model.safetensors").exists()  # the others are not fetched
    assert (Path(tokenizer) / "tokenizer.json").is_file()
    assert size == (Path(folder) / "model.safetensors").stat().st_size


def test_a_folder_of_a_revision_is_deleted_behind(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "lineage.toml").write_text(
        'name = "traj"\n[[stages]]\nname = "rl"\nsource = "someone/olmo2-traj"\npath = "run-a/.*"\n'
    )
    there = hub.run(
        f"""
        lineage = Lineage.open("{tmp_path / "lineage.toml"}")
        seen = []
        for checkpoint, folder in prefetch_checkpoints(lineage.checkpoints, ahead=0, delete_behind=True):
            seen.append([checkpoint.step, (folder / "model.safetensors").exists(), str(folder)])
        show([[step, before, (Path(folder) / "model.safetensors").exists()] for step, before, folder in seen])
        """,
        HF_HOME=str(tmp_path / "fresh"),
    )
    assert there == [[100, True, False], [200, True, False]]


def test_folders_on_disk_are_picked_by_the_same_pattern(tmp_path: Path, tiny) -> None:
    from ontogeny.lineage import Lineage

    for step in (5, 10):
        shutil.copytree(tiny("gpt_neox"), tmp_path / "models" / "deep" / f"at_{step}_x")
    (tmp_path / "lineage.toml").write_text(
        '[[stages]]\nname = "a"\nsource = "models"\npath = \'deep/at_(?P<step>\\d+)_x\'\ntokens_per_step = 1000\n'
    )
    lineage = Lineage.open(tmp_path)
    assert [(c.step, c.tokens) for c in lineage.checkpoints] == [(5, 5000.0), (10, 10_000.0)]


def test_manifests_are_complete() -> None:
    for name, path in packaged_manifests().items():
        manifest = load_manifest(path)
        assert manifest.name == name
        assert manifest.summary
        assert manifest.parameters
        assert manifest.gigabytes
        assert manifest.reference
    assert json.dumps(sorted(packaged_manifests()))
