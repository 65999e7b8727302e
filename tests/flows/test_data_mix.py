"""Siblings along a data-mix axis through the command line: rows with their share, a picture, resumption, and networks that differ."""

from pathlib import Path

import pandas as pd
import pytest

from ontogeny.storage.run import Run
from ontogeny.views import empty_reason
from tests.flows.test_evaluate import written
from tests.helpers.command_line import Say
from tests.helpers.tiny_models import byte_tokenizer, save_tiny

OPTIONS = (
    "-m tracing_vector --alpha 0,1 --sites resid.1 --controls 3 --shuffles 0 --samples 0 --limit 4 --max-kl 50 --equal-kl 1e-4 "
    "--quiet"
)


def lineage_file(folder: Path, sources: dict[str, tuple[Path, float | None]]) -> Path:
    blocks = ['name = "mix"\n']
    for name, (source, share) in sources.items():
        more = "" if share is None else f"data_share = {share}\n"
        blocks.append(f'[[stages]]\nname = "{name}"\nsource = "{source}"\nparent = ""\n{more}')
    path = folder / "lineage.toml"
    path.write_text("\n".join(blocks))
    return path


@pytest.fixture
def networks(tiny, tmp_path: Path) -> list[Path]:
    return [tiny("gpt_neox", seed=seed) for seed in range(3)]


def test_siblings_are_traced_evaluated_and_drawn(say: Say, networks: list[Path], tmp_path: Path) -> None:
    concept, out, plain = written(tmp_path / "day.jsonl"), tmp_path / "run", tmp_path / "plain"
    shares = {f"share-{share}": (folder, share) for share, folder in zip((0, 0.1, 0.5), networks, strict=True)}
    lineage = lineage_file(tmp_path, shares)
    assert say("trace", lineage, "-c", concept, "--sites", "resid.1", "--out", out, "--quiet").code == 0
    code, text, err = say("evaluate", lineage, "-c", concept, *OPTIONS.split(), "--out", out)
    assert (code, err) == (0, "")
    assert "Undecided: 3 siblings" in text
    run = Run.open(out)
    table = run.records()
    carried = table[table["coords"].map(lambda coords: "data_share" in dict(coords))]
    assert {dict(c)["data_share"] for c in carried["coords"]} == {"0", "0.1", "0.5"}
    assert {"auroc", "accuracy", "steering_effect", "removed_share"} <= set(carried["metric"])
    assert {dict(c)["of"] for c in table[table["metric"] == "share_trend"]["coords"]} >= {"effect", "removed", "probe"}
    assert empty_reason(run.show("data_mix")) is None
    # Again: nothing is computed, and the trends are those that are there.
    assert say("evaluate", lineage, "-c", concept, *OPTIONS.split(), "--out", out).code == 0
    assert len(Run.open(out).records()) == len(table)
    # The same stage without a share has the same rows but for the share, and none of those that siblings add.
    bare = lineage_file(tmp_path, {"share-0": (networks[0], None)})
    assert say("evaluate", bare, "-c", concept, *OPTIONS.split(), "--out", plain).code == 0
    before = _of_vectors(Run.open(plain).records())
    own = _of_vectors(table[table["stage"].eq("share-0")])
    new = own["metric"].isin(["unwanted_share", "removed_share"]) | (
        own["metric"].eq("effect_at_equal_kl") & own["control"].notna()
    )
    columns = ["metric", "control", "method", "site", "split", "value", "low", "high", "n", "coords"]
    pd.testing.assert_frame_equal(before[columns], own[~new].reset_index(drop=True)[columns])


def _of_vectors(table: pd.DataFrame) -> pd.DataFrame:
    rows = table[table["unit"].str.startswith("evaluation-")]
    coords = [str(sorted((k, v) for k, v in dict(c).items() if k != "data_share")) for c in rows["coords"]]
    keys = ["metric", "control", "method", "split", "coords"]
    return rows.assign(coords=coords).sort_values(keys, kind="stable").reset_index(drop=True)


def test_rejects_siblings_with_other_networks_or_tokenizers(
    say: Say, networks: list[Path], tiny, tmp_path: Path
) -> None:
    concept = written(tmp_path / "day.jsonl")
    longer = tmp_path / "longer"
    save_tiny("gpt_neox", longer, seed=5)
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["zzz"])
    tokenizer.save_pretrained(longer)
    for other, words in ((tiny("llama"), "the same network, got gpt_neox of 2 layers"), (longer, "the same tokenizer")):
        lineage = lineage_file(tmp_path, {"a": (networks[0], 0.0), "b": (other, 0.1)})
        for more in ([], ["--dry-run"]):
            code, _, err = say("evaluate", lineage, "-c", concept, *OPTIONS.split(), *more)
            assert code != 0
            assert words in err
            assert err.count("\n") == 1
