"""Siblings of a lineage: stages that differ in the share of some data, and files that do not say which."""

from pathlib import Path

import pytest

from ontogeny.errors import BadInput
from ontogeny.lineage import Lineage
from ontogeny.lineage.siblings import sibling_stages
from tests.lineage.test_weight_files import model

NAMES = ("a", "b", "c")


def lineage_of(folder: Path, *lines: str) -> Path:
    """A lineage.toml whose stages `a`, `b`, … have these further lines."""
    blocks = []
    for name, more in zip(NAMES, lines, strict=False):
        model(folder / name, seed=ord(name))
        source = "" if "source" in more else f'source = "{name}"\n'
        blocks.append(f'[[stages]]\nname = "{name}"\n{source}{more}\n')
    path = folder / "lineage.toml"
    path.write_text("\n".join(blocks))
    return path


def test_stages_with_a_share_are_siblings_in_its_order(tmp_path: Path) -> None:
    alone = 'parent = ""\ndata_share = '
    lineage = Lineage.open(lineage_of(tmp_path, f"{alone}0.25", f"{alone}0", f"{alone}1"))
    assert [(share, stage.name) for share, stage in sibling_stages(lineage.stages)] == [(0, "b"), (0.25, "a"), (1, "c")]
    assert [c.data_share for c in lineage.checkpoints] == [0.25, 0, 1]
    # Seeds of one share, siblings after a common stage, and a stage outside the axis.
    seeds = [f'parent = ""\ntrain_seed = {seed}\ndata_share = {share}' for seed, share in ((0, 0), (1, 0), (0, 0.5))]
    assert len(sibling_stages(Lineage.open(lineage_of(tmp_path, *seeds)).stages)) == 3
    mixed = Lineage.open(
        lineage_of(tmp_path, "", 'parent = "a"\ndata_share = 0', 'parent = "a"\ndata_share = .5'.replace("= .", "= 0."))
    )
    assert [c.data_share for c in mixed.checkpoints] == [None, 0, 0.5]
    one = Lineage.open(tmp_path / "a").with_stage("b", tmp_path / "b", parent="", data_share=0.1)
    assert sibling_stages(one.select("last").stages)[0][1].name == "b"


ALONE = 'parent = ""\n'


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([f"{ALONE}data_share = 10", ""], "data_share must be a share from 0 to 1, got 10: write 10 % as 0.1"),
        ([f"{ALONE}data_share = -0.1", ""], "from 0 to 1"),
        ([f"{ALONE}data_share = nan", ""], "from 0 to 1"),
        ([f'{ALONE}data_share = "0.1"', ""], "data_share must be a number"),
        ([f"{ALONE}data_share = true", ""], "data_share must be a number"),
        ([f"{ALONE}data_share = [0.1]", ""], "data_share must be a number"),
        ([f"{ALONE}datashare = 0.1", ""], "did you mean data_share"),
        ([f"{ALONE}data_share = 0.1", f"{ALONE}data_share = 0.1"], "a and b .* have the same data_share 0.1"),
        ([f"{ALONE}data_share = 0.1", ALONE], "at least two values of data_share, got 0.1 of a alone"),
        ([f"{ALONE}data_share = 0", "data_share = 0.1"], "must have the same parent, got a, none"),
        ([f"{ALONE}data_share = 0", f'{ALONE}data_share = 0.1\nsource = "a"'], "the same source .*a: correct one"),
        (
            [f"{ALONE}data_share = 0\ntrain_seed = 0", f"{ALONE}data_share = 0\ntrain_seed = 1"],
            "at least two values of data_share",
        ),
    ],
)
def test_rejects_siblings_that_cannot_be_compared(lines: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        Lineage.open(lineage_of(tmp_path, *lines))
    assert "\n" not in str(caught.value)


def test_rejects_an_added_stage_of_the_same_share(tmp_path: Path) -> None:
    base = Lineage.open(lineage_of(tmp_path, f"{ALONE}data_share = 0", f"{ALONE}data_share = 0.1", ALONE))
    model(tmp_path / "d", seed=9)
    with pytest.raises(BadInput, match="same data_share"):
        base.with_stage("d", tmp_path / "d", parent="", data_share=0.1)
    with pytest.raises(BadInput, match=r"`data_share` of the stage .* must be from 0 to 1"):
        base.with_stage("d", tmp_path / "d", parent="", data_share=2)
