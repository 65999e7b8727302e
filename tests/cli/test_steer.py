"""`ontogeny steer`: samples side by side, and one error line for bad input."""

import json
from functools import partial

import pytest
import torch

from ontogeny.direction import Direction
from ontogeny.sites import Site
from ontogeny.storage.directions import save_direction
from tests.helpers.command_line import Say


@pytest.fixture
def steer(say: Say) -> Say:
    return partial(say, "steer")


@pytest.fixture
def vector(tmp_path):
    v = 6 * torch.randn(32, generator=torch.Generator().manual_seed(3))
    return save_direction(Direction(v, Site("resid", 1), "planted", facts={"std": 0.0}), tmp_path / "d.safetensors")


def test_samples_side_by_side(steer, tiny, vector):
    code, out, _ = steer(
        tiny("llama"), "-d", vector, "--alpha", "0,3", "-p", "Once", "-p", "The [b]dog", "--tokens", "6", "--json"
    )
    assert code == 0
    told = json.loads(out)
    assert (told["direction"], told["site"]) == ("planted", "resid.1")
    arms = [(s["prompt"], s["arm"], s["alpha"]) for s in told["samples"]]
    assert arms[:4] == [
        ("Once", "unsteered", None),
        ("Once", "steered", 0.0),
        ("Once", "steered", 3.0),
        ("Once", "control 0", 3.0),
    ]
    assert len(arms) == 8
    texts = [s["text"] for s in told["samples"]]
    assert texts[0] == texts[1] != texts[2]
    assert told["samples"][0]["surprise"] < told["samples"][2]["surprise"], "greedy text is what the model expects"


def test_prints_a_table(steer, tiny, vector):
    code, out, _ = steer(
        tiny("gpt2"), "-d", vector, "-p", "[b]Once", "--tokens", "4", "--where", "last", "--controls", "2"
    )
    assert code == 0
    assert "[b]Once" in out
    assert "unsteered" in out
    assert "control 1" in out


def test_ablation_with_several_samples(steer, tiny, vector, tmp_path):
    (tmp_path / "p.txt").write_text("One\n\nTwo\n")
    code, out, _ = steer(
        *(tiny("gpt_neox"), "-d", vector, "--action", "ablate", "--prompts", tmp_path / "p.txt", "--tokens", "3"),
        *("--temperature", "1", "--samples", "2", "--json"),
    )
    assert code == 0
    arms = [s["arm"] for s in json.loads(out)["samples"]]
    assert (
        arms
        == ["unsteered"] * 2
        + ["ablated"] * 2
        + ["control 0"] * 2
        + ["unsteered"] * 2
        + ["ablated"] * 2
        + ["control 0"] * 2
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--alpha", "nan", "-p", "x"], "finite numbers"),
        (["--alpha", "much", "-p", "x"], "--alpha must be finite numbers, separated by commas, got 'much'"),
        (["--alpha", "", "-p", "x"], "finite numbers"),
        ([], "no prompt to continue"),
        (["-p", "x", "--action", "ad"], "did you mean add"),
        (["-p", "x", "--action", "ablate", "--alpha", "3"], "--alpha must be 1 for --action ablate"),
        (["-p", "x", "--where", "lst"], "did you mean last"),
        (["-p", "x", "--scale", "gap"], "must have the fact gap"),
        (["-p", "x", "--samples", "3"], "--samples must be 1 for greedy decoding"),
        (["-p", "x" * 200], "exceed the context"),
        (["-p", "x", "-d", "nothing.safetensors"], "there is no file nothing.safetensors"),
        (["-p", "x", "-d", "runs/nowhere:truth"], "is not a run directory"),
        (["-p", "x", "--prompts", "nowhere.txt"], "nowhere.txt cannot be read (No such file"),
        (["-p", "x", "--dtype", "float8"], "no dtype called"),
    ],
)
def test_bad_input_is_one_line(steer, tiny, vector, args, words):
    code, out, err = steer(tiny("gpt2"), "-d", vector, *args)
    assert code == 2
    assert out == ""
    assert words in err
    assert err.startswith("ontogeny: ")
    assert err.count("\n") == 1


def test_rejects_direction_of_another_width(steer, tiny, tmp_path):
    wide = save_direction(Direction(torch.ones(48), Site("resid", 1), "wide"), tmp_path / "w.safetensors")
    code, _, err = steer(tiny("gpt2"), "-d", wide, "-p", "x")
    assert code == 2
    assert "an edit at resid.1 must have 32 dimensions, got 48" in err
