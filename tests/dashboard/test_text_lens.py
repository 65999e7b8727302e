"""Text lens: the scores of the library, kept under the fingerprint of the weights."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

import ontogeny as on
from ontogeny.activations.attention_vectors import attention_vectors
from ontogeny.dashboard.attention import attention_of_text, map_of_head
from ontogeny.dashboard.checkpoint_models import CheckpointModels
from ontogeny.dashboard.logit_lens import lens_of_text
from ontogeny.dashboard.selection import LensRequest
from ontogeny.dashboard.shown_run import ShownRun
from ontogeny.dashboard.text_lens import MOST_LETTERS, read_typed_text
from ontogeny.models.reusable import ReusableModel
from ontogeny.storage.run import Run
from tests.helpers.chat_runs import chat_run

TEXT, STAGE = "so they say", "pretrain"
ASKED = LensRequest(TEXT, "planted", STAGE, "3000", site="resid.1", method="mass_mean")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return chat_run(tmp_path_factory)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    loaded: list[Path] = []
    load = ReusableModel.load
    monkeypatch.setattr(ReusableModel, "load", lambda self, folder: (loaded.append(folder), load(self, folder))[1])
    return loaded


class TextLens:
    """The models of a dashboard and what is asked of them."""

    def __init__(self, run: Run) -> None:
        self.shown, self.models = ShownRun("run", run), CheckpointModels(run)

    def read(self, request: LensRequest) -> dict:
        return read_typed_text(self.shown, self.models, request)


def scores(found: pd.DataFrame, step: int) -> list[float]:
    own = found[found["step"].eq(step)]
    return own.sort_values("coords", key=lambda c: c.map(lambda x: int(x["token"])))["value"].tolist()


def test_scores_are_those_of_the_library(run: Run) -> None:
    lens = TextLens(run)
    early = LensRequest(TEXT, "planted", STAGE, "1000", "resid.1", "mass_mean")
    answers = [lens.read(request) for request in (early, ASKED)]
    stages = {visit["stage"] for visit in run.about["lineage"]["checkpoints"]}
    assert stages == {STAGE}
    on.read_checkpoints(run, "planted", TEXT, site="resid.1")
    found = run.records(metric="token_score")
    for answer, step in zip(answers, (1000, 3000), strict=True):
        assert "".join(answer["tokens"]) == TEXT
        assert answer["scores"] == pytest.approx(scores(found, step), rel=1e-4)
        assert (answer["site"], answer["method"], answer["position"]) == ("resid.1", "mass_mean", "last")


def test_a_reading_is_kept_until_the_weights_change(run: Run, loads: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "runs"
    shutil.copytree(run.folder.parent, copy)
    moved = Run.open(copy / "run")
    about = moved.about
    for checkpoint in about["lineage"]["checkpoints"]:
        checkpoint["source"] = checkpoint["source"].replace(str(run.folder.parent), str(copy))
    moved.describe(about)
    lens = TextLens(moved)
    first = lens.read(ASKED)
    assert lens.read(ASKED) == first
    assert len(loads) == 1
    early, late = ((copy / "sft" / f"checkpoint-{step}" / "model.safetensors") for step in (1000, 3000))
    late.write_bytes(early.read_bytes())
    assert lens.read(ASKED)["scores"] != first["scores"]
    assert len(loads) == 2
    shutil.rmtree(late.parent)
    with pytest.raises(on.BadInput):
        lens.read(ASKED)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (LensRequest(TEXT, "nothing", STAGE, "3000"), "no traced concept"),
        (LensRequest(TEXT, "planted", STAGE, "7"), "not traced at pretrain 7"),
        (LensRequest("x" * (MOST_LETTERS + 1), "planted", STAGE, "3000"), "shorten"),
        (LensRequest(" ", "planted", STAGE, "3000"), "must not be empty"),
        (LensRequest(TEXT, "planted", STAGE, "3000", site="mlp.1"), "was not traced"),
    ],
)
def test_what_cannot_be_read_is_an_error(run: Run, request_: LensRequest, message: str) -> None:
    with pytest.raises(on.BadInput, match=message):
        TextLens(run).read(request_)


def test_attention_is_that_of_the_model_and_layouts_are_aligned(run: Run) -> None:
    shown, models = ShownRun("run", run), CheckpointModels(run)
    early, late = (attention_of_text(shown, models, "so they say so", STAGE, step) for step in ("1000", "3000"))
    assert "".join(late["tokens"]) == "so they say so"
    assert (len(late["planes"]), len(late["planes"][0])) == (late["layers"], late["heads"])
    pattern = torch.tensor(late["patterns"][1][0])
    model = on.load_model(str(run.about["lineage"]["source"]), step=3000)
    ids = torch.tensor(model.tokenizer("so they say so").input_ids)
    torch.testing.assert_close(pattern, attention_vectors(model, ids).patterns[1, 0], atol=1e-3, rtol=0)
    a, b = (torch.tensor(found["planes"][0][0]) for found in (early, late))
    assert float((a * b).sum()) >= 0, "a layout that is aligned does not lie opposite"
    points = map_of_head(shown, models, "so they say so", STAGE, "3000", 2, 1)["points"]
    assert len(points) == 2 * len(late["tokens"])
    with pytest.raises(on.BadInput, match=r"no head\.3\.0"):
        map_of_head(shown, models, "so they say so", STAGE, "3000", 3, 0)
    with pytest.raises(on.BadInput, match="tokens"):
        attention_of_text(shown, models, "word " * 90, STAGE, "3000")


def test_the_last_layer_of_the_lens_is_the_model(run: Run) -> None:
    answer = lens_of_text(CheckpointModels(run), TEXT, STAGE, "3000")
    model = on.load_model(str(run.about["lineage"]["source"]), step=3000)
    with torch.no_grad():
        logits = model.network(torch.tensor([model.tokenizer(TEXT).input_ids])).logits[0]
    best = logits.softmax(-1).max(-1)
    assert [word for word, _ in answer["layers"][-1]] == [model.tokenizer.decode([i]) for i in best.indices.tolist()]
    assert [p for _, p in answer["layers"][-1]] == pytest.approx(best.values.tolist(), abs=1e-3)
    assert len(answer["layers"]) == model.layers + 1
    assert answer["layers"][0] != answer["layers"][-1]
