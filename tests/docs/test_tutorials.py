"""The five tutorials run, cell by cell, on a small training run of the world of the demo; each last value of a cell is displayed."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ontogeny.training.loop import TrainingConfig
from ontogeny.training.toy_models import in_world
from ontogeny.training.toy_models.in_world import TOY_MODEL_SIZES, TOY_STAGES, ToyModelSize, ToyStage
from tests.helpers.docs_pages import ROOT

NOTEBOOKS = sorted((ROOT / "docs/tutorials").glob("*.ipynb"))
SHOWS = {
    "compare_stages": "entropy",
    "first_trace": "resid.",
    "own_concept": "true_or_false",
    "steer_and_evaluate": "The ring marks the alpha",
    "write_a_study": "base_cosine",
}
"""Something that a cell of each shows."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tutorials") / "demo"
    stage = ToyStage(TrainingConfig(12, 3e-3, warmup=2), rows=4, checkpoints=4, first=1)
    size = ToyModelSize(dict.fromkeys(TOY_STAGES, stage), {"families": 18, "potions": 20}, layers=2, heads=2, width=32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_world, "TOY_MODEL_SIZES", {**TOY_MODEL_SIZES, "tutorial": size})
        in_world.train_toy_model(folder, "tutorial")
        patch.setenv("ONTOGENY_DEMO", str(folder))
        yield folder


def displayed(value: Any) -> str:
    """The value as a notebook shows it."""
    for name in ("_repr_mimebundle_", "_repr_html_"):
        if hasattr(value, name) and (shown := getattr(value, name)()) is not None:
            return str(shown)
    return repr(value)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_tutorial_runs(path: Path, demo: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, path.name, "exec"), names)
        if isinstance(last, ast.Expr):
            shown.append(displayed(eval(compile(ast.Expression(last.value), path.name, "eval"), names)))
    assert len(shown) >= 2
    assert SHOWS[path.stem] in " ".join(shown)
    assert str(demo) == str(names["demo"])
