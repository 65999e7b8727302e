"""A mistyped name is refused in one line, with the nearest name, before torch, transformers, pandas or duckdb are loaded."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

HEAVY = ("torch", "transformers", "pandas", "duckdb", "altair", "sklearn")
_LOOP = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from ontogeny import cli
answers = []
for args in json.load(sys.stdin):
    sys.argv, said, code = ["ontogeny", *args], io.StringIO(), 0
    with redirect_stderr(said), redirect_stdout(said):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    answers.append((code, said.getvalue(), [name for name in %r if name in sys.modules]))
    if answers[-1][2]:
        break
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lineage of two stages without weights, a concept file, and a run directory that has only its description."""
    folder = tmp_path_factory.mktemp("refusals")
    config = {"model_type": "gpt_neox", "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32}
    for stage in ("base", "sft"):
        for step in (1, 2):
            there = folder / stage / f"checkpoint-{step}"
            there.mkdir(parents=True)
            (there / "config.json").write_text(json.dumps(config))
            (there / "model.safetensors").write_bytes(b"")
    stages = "".join(f'[[stages]]\nname = "{name}"\nsource = "{name}"\n' for name in ("base", "sft"))
    (folder / "lineage.toml").write_text(f'name = "two"\n{stages}')
    rows = [{"text": f"text {i}", "label": i % 2} for i in range(40)]
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = folder / "run"
    run.mkdir()
    about = {
        "format": 1,
        "lineage": {"name": "two", "stages": ["base", "sft"]},
        "concepts": [{"name": "c"}],
        "settings": {},
    }
    (run / "run.json").write_text(json.dumps(about))
    return folder


def cases(place: Path) -> dict[str, tuple[list[str], str]]:
    """Command line and a part of its answer, by name."""
    lineage, c, run = (str(place / name) for name in ("lineage.toml", "c.jsonl", "run"))
    out = ["--out", str(place / "out")]
    refused: dict[str, tuple[list[str], str]] = {}
    for command, args in {
        "trace": ["trace", lineage, *out],
        "evaluate": ["evaluate", lineage],
        "transfer": ["transfer", lineage, *out],
        "monitor": ["monitor", run],
    }.items():
        refused |= {
            f"{command}, concept": ([*args, "-c", "hatechek"], "no concept called 'hatechek'; did you mean hatecheck?"),
            f"{command}, file": ([*args, "-c", "nowhere.csv"], "nowhere.csv"),
            f"{command}, ignored column": ([*args, "-c", c, "--ignore-column", "kind2"], "kind2"),
            f"{command}, positive class": ([*args, "-c", c, "--positive", "yess"], "yess"),
        }
        if command in ("trace", "monitor"):
            refused[f"{command}, text"] = ([*args, "-c", c, "--text-column", "txt"], "has no column 'txt'")
            refused[f"{command}, label"] = ([*args, "-c", c, "--label-column", "lable"], "has no column 'lable'")
        if command != "monitor":
            refused[f"{command}, stage"] = ([*args, "-c", c, "--steps", "sftt=last"], "did you mean sft?")
            refused[f"{command}, step"] = ([*args, "-c", c, "--steps", "77"], "no checkpoint")
            refused[f"{command}, selector"] = ([*args, "-c", c, "--steps", "lats"], "selects no steps")
            refused[f"{command}, lineage"] = ([args[0], "nowhere.toml", *args[2:], "-c", c], "there is no file")
    trace, evaluate, transfer = (
        ["trace", lineage, "-c", c, *out],
        ["evaluate", lineage, "-c", c],
        ["transfer", lineage, "-c", c, *out],
    )
    return refused | {
        "trace, site": ([*trace, "--sites", "residd"], "must begin with one of resid"),
        "trace, layer": ([*trace, "--sites", "resid.9"], "this model's layers are 0 to 2"),
        "trace, probe": ([*trace, "--probes", "logistik"], "did you mean logistic?"),
        "trace, kernel": ([*trace, "--kernels", "gauss"], "did you mean gaussian_50?"),
        "trace, protocol": ([*trace, "--protocol", "papr"], "did you mean paper?"),
        "trace, dtype": ([*trace, "--dtype", "float33"], "did you mean float32?"),
        "evaluate, method": ([*evaluate, "-m", "caaa"], "did you mean caa?"),
        "evaluate, site": ([*evaluate, "--sites", "residd"], "must begin with one of resid"),
        "evaluate, layer": ([*evaluate, "--sites", "resid.9"], "this model's layers are 0 to 2"),
        "evaluate, alpha": ([*evaluate, "--alpha", "two"], "--alpha must be finite numbers"),
        "transfer, target": ([*transfer, "--target", "sftt:last"], "did you mean sft?"),
        "transfer, site": ([*transfer, "--site", "residd.3"], "is not a site"),
        "steer, run": (["steer", lineage, "-d", "norun:c", "-p", "hi"], "is not a run directory"),
        "steer, concept": (["steer", lineage, "-d", f"{run}:cc", "-p", "hi"], "did you mean c?"),
        "steer, file": (["steer", lineage, "-d", "nowhere.safetensors", "-p", "hi"], "there is no file"),
        "steer, site": (["steer", lineage, "-d", f"{run}:c", "-p", "hi", "--site", "resid"], "is not a site"),
        "steer, action": (
            ["steer", lineage, "-d", f"{run}:c", "-p", "hi", "--action", "ablat"],
            "did you mean ablate?",
        ),
        "drift, instruction": (["drift", lineage, "-s", "jsn"], "did you mean json?"),
        "drift, mitigation": (["drift", lineage, "-m", "split_softmx=0.5"], "did you mean split_softmax?"),
        "drift, stage": (["drift", lineage, "--steps", "sftt=last"], "did you mean sft?"),
        "compare, study": (["compare", lineage, *out, "--studies", "knowlege"], "did you mean knowledge?"),
        "compare, stage": (["compare", lineage, *out, "--stages", "sftt:last"], "did you mean sft?"),
        "compare, concept": (["compare", lineage, *out, "--statements", "truth_citis"], "did you mean truth_cities?"),
        "compare, requests": (["compare", lineage, *out, "--requests", "refusl"], "did you mean refusal?"),
        "monitor, run": (["monitor", "norun"], "is not a run directory"),
        "monitor, other concept": (["monitor", run, "--cross-concept", "hatechek"], "did you mean hatecheck?"),
        "monitor, concept of the run": (["monitor", run, "-c", "c"], "in place of 'c' give the file"),
        "monitor, stage": (["monitor", run, "-c", c, "--frozen", "sftt"], "did you mean sft?"),
        "show, view": (["show", run, "emergense"], "did you mean emergence?"),
        "show, run": (["show", "norun", "emergence"], "is not a run directory"),
        "report, run": (["report", "norun"], "is not a run directory"),
        "query, run": (["query", "norun", "select 1"], "is not a run directory"),
        "query, format": (["query", run, "select 1", "--format", "tsv"], "--format must be one of"),
        "audit, stage": (["audit", lineage, "--steps", "sftt=last"], "did you mean sft?"),
        "list, folder": (["list", "conceptz"], "did you mean concepts?"),
        "evaluate, where": ([*evaluate, "--where", "promt"], "no set of tokens called 'promt'; did you mean prompt?"),
        "evaluate, aim": ([*evaluate, "--aim", "rigth"], "did you mean right?"),
        "evaluate, scorer": ([*evaluate, "--scorer", "lexikon:a,b"], "did you mean lexicon?"),
        "transfer, length": ([*transfer, "--length", "sorce"], "did you mean source?"),
        "steer, where": (["steer", lineage, "-d", f"{run}:c", "-p", "hi", "--where", "al"], "did you mean all?"),
        "steer, scale": (["steer", lineage, "-d", f"{run}:c", "-p", "hi", "--scale", "sdt"], "did you mean std?"),
        "compare, pairing": (["compare", lineage, *out, "--pairing", "same"], "did you mean same_object?"),
        "train, size": (["train", "--size", "smal", *out], "did you mean small?"),
        "train, stage": (["train", "--stages", "base,stf", *out], "did you mean sft?"),
        "train, file": (["train", "--text-file", "nowhere.txt", *out], "there is no file nowhere.txt"),
        "trace, planes": ([*trace, "--planes", "99"], "--planes must lie between 0 and 12"),
        "train, world": (["train", "--world", "nusery", *out], "did you mean nursery?"),
    }


def test_typing_errors_are_answered_before_anything_heavy_is_loaded(place: Path) -> None:
    named = cases(place)
    lines = json.dumps([args for args, _ in named.values()])
    ended = subprocess.run(
        [sys.executable, "-c", _LOOP % (HEAVY,)], input=lines, capture_output=True, text=True, check=True
    )
    answers = json.loads(ended.stdout)
    for (name, (_, words)), (code, said, heavy) in zip(named.items(), answers, strict=False):
        assert heavy == [], f"{name}: {said}"
        assert code == 2, name
        assert words in said, name
        assert len(said.splitlines()) == 1, name
    assert len(answers) == len(named)
    assert not (place / "out").exists()


def test_kernels_of_the_settings_are_those_of_the_metric() -> None:
    from ontogeny.measurements.settings import KERNEL_NAMES
    from ontogeny.metrics.dependence import KERNELS

    assert set(KERNEL_NAMES) == set(KERNELS)


def test_choices_of_options_are_those_of_the_library() -> None:
    from ontogeny.cli._arguments import CHOICES
    from ontogeny.editing.session import EDIT_METHODS
    from ontogeny.jobs.transfer.plan import VectorLength
    from ontogeny.patching.prompt_pairs import PairingMode
    from ontogeny.steering.token_selection import TOKEN_SELECTORS
    from ontogeny.tasks.contrast_items import ContrastAim
    from ontogeny.training.toy_models.in_world import TOY_MODEL_SIZES, TOY_STAGES

    known = {
        "set of tokens": TOKEN_SELECTORS,
        "aim": get_args(ContrastAim),
        "editing method": EDIT_METHODS,
        "length of a vector": get_args(VectorLength),
        "pairing": get_args(PairingMode),
        "size": TOY_MODEL_SIZES,
        "stage": TOY_STAGES,
    }
    assert {kind: set(names) for kind, names in known.items()} == {kind: set(CHOICES[kind]) for kind in known}
