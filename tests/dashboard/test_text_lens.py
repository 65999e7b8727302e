"""Text lens: the scores of the library, kept under the fingerprint of the weights."""

import base64
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

import ontogeny as on
from ontogeny.activations.attention_vectors import attention_vectors
from ontogeny.activations.patch_labels import HUES
from ontogeny.dashboard.attention import attention_of_text, map_of_head
from ontogeny.dashboard.attention_page import write_attention_page
from ontogeny.dashboard.checkpoint_models import CheckpointModels
from ontogeny.dashboard.logit_lens import lens_of_text
from ontogeny.dashboard.selection import LensRequest
from ontogeny.dashboard.shown_run import ShownRun
from ontogeny.dashboard.text_lens import MOST_LETTERS, read_typed_text
from ontogeny.models.reusable import ReusableModel
from ontogeny.models.vision import load_image_model
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
    model = on.load_model(str(run.about["lineage"]["source"]), step=3000)
    ids = torch.tensor(model.tokenizer("so they say so").input_ids)
    pattern = attention_vectors(model, ids).patterns[1, 0]
    torch.testing.assert_close(_dense(late["links"][1][0], len(ids)), pattern * (pattern >= 0.04), atol=1e-3, rtol=0)
    a, b = (torch.tensor(found["planes"][0][0]) for found in (early, late))
    assert float((a * b).sum()) >= 0, "a layout that is aligned does not lie opposite"
    points = map_of_head(shown, models, "so they say so", STAGE, "3000", 2, 1)["points"]
    assert len(points) == 2 * len(late["tokens"])
    with pytest.raises(on.BadInput, match=r"no head\.3\.0"):
        map_of_head(shown, models, "so they say so", STAGE, "3000", 3, 0)
    with pytest.raises(on.BadInput, match="tokens"):
        attention_of_text(shown, models, "word " * 90, STAGE, "3000")


def _dense(links: list[list[float]], count: int) -> torch.Tensor:
    pattern = torch.zeros(count, count)
    for query, key, weight in links:
        pattern[int(query), int(key)] = weight
    return pattern


def test_several_texts_share_a_space_and_keep_their_attention(run: Run) -> None:
    shown, models = ShownRun("run", run), CheckpointModels(run)
    texts = ["so they say so", "it was told"]
    alone = [attention_of_text(shown, models, text, STAGE, "3000") for text in texts]
    both = attention_of_text(shown, models, "\n \n".join(texts), STAGE, "3000")
    first, second = both["counts"]
    assert both["counts"] == [len(one["tokens"]) for one in alone]
    assert len(both["planes"][0][0]) == 2 * (first + second)
    assert both["planes"] != alone[0]["planes"]
    whole = _dense(both["links"][1][0], first + second)
    for one, start in zip(alone, (0, first), strict=True):
        end = start + len(one["tokens"])
        torch.testing.assert_close(
            whole[start:end, start:end], _dense(one["links"][1][0], end - start), atol=2e-3, rtol=0
        )
    assert float(whole[:first, first:].sum() + whole[first:, :first].sum()) == 0
    best = attention_of_text(shown, models, "\n\n".join(texts), STAGE, "3000", "correlation")
    assert best["planes"] != both["planes"]
    assert best["links"] == both["links"], "no scale changes the attention"
    for text, message in (("x", "2 to"), ("word of\n\n" * 17, "1 to 16 texts")):
        with pytest.raises(on.BadInput, match=message):
            attention_of_text(shown, models, text, STAGE, "3000")
    with pytest.raises(on.BadInput, match="scale"):
        attention_of_text(shown, models, texts[0], STAGE, "3000", "log")


def test_a_page_shows_patches_of_an_image_model_at_several_checkpoints(
    tmp_path: Path, tiny: Callable[..., Path]
) -> None:
    model, images = load_image_model(tiny("vit")), torch.rand(3, 3, 16, 16) * 2 - 1
    page = write_attention_page([("early", model), ("late", model)], tmp_path / "page.html", images=images)
    held = re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert held is not None
    late = json.loads(held[1])["attention\n3 images\n\n1"]
    assert late["counts"] == [17, 17, 17]
    assert late["labels"]["row"][:6] == [None, 0, 0, 0, 0, 1]
    assert late["labels"]["column"][17:23] == [None, 0, 1, 2, 3, 0]
    assert {*late["labels"]["hue"]} <= {None, *HUES}
    model.network.set_attn_implementation("eager")
    with torch.no_grad():
        own = model.network(pixel_values=images, output_attentions=True).attentions[1][2, 3]
    shown = _dense(late["links"][1][3], 51)[34:, 34:]
    torch.testing.assert_close(shown, own * (own >= 0.04), atol=2e-3, rtol=0)
    colours = torch.frombuffer(bytearray(base64.b64decode(late["images"][0]["pixels"])), dtype=torch.uint8)
    torch.testing.assert_close(colours.view(16, 16, 3).permute(2, 0, 1) / 127.5 - 1, images[0], atol=0.01, rtol=0)
    with pytest.raises(on.BadInput, match="must hold at least one model"):
        write_attention_page([], tmp_path / "none.html", texts=["a b"])
    for wrong in (
        {"texts": ["a b"]},
        {},
        {"images": images, "texts": ["a b"]},
        {"images": images[:0]},
        {"images": images[..., :12]},
        {"images": images / 0},
        {"images": images[0]},
        {"images": images[0, 0, 0]},
        {"texts": "a b"},
    ):
        with pytest.raises(on.BadInput):
            write_attention_page([("late", model)], tmp_path / "none.html", **wrong)  # type: ignore[arg-type]


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
