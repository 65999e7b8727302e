"""The study of scenes inside a diffusion model: moved masks, null runs that carry no effect, pictures that are safe to draw."""

import base64
import json
import sys
from pathlib import Path

import pytest
import torch

from ontogeny.diffusion import make_scenes, open_denoiser
from ontogeny.errors import BadInput
from ontogeny.jobs.study import paper_study, replicate
from ontogeny.jobs.study.study import plan_study
from ontogeny.studies.diffusion_scenes._pushing import _mask_effects, moved_mask
from ontogeny.views import empty_reason, load_view
from tests.helpers import synthetic_records


def test_masks_move_towards_the_room_and_are_cut_at_the_edge() -> None:
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[0, 1:3, 5:8] = True
    mask[1, 0, 0] = True
    moved = moved_mask(mask, 2)
    assert moved[0].nonzero()[:, 0].unique().tolist() == [3, 4]
    assert moved[0].nonzero()[:, 1].unique().tolist() == [3, 4, 5]
    assert moved[1].nonzero().tolist() == [[2, 2]]
    far = moved_mask(mask, 7)
    assert not far[0].any()  # all of it left the image
    assert far[1].nonzero().tolist() == [[7, 7]]


def test_an_image_follows_if_it_is_nearer_to_the_new_mask() -> None:
    """Scenes that become others of the same places follow their own new mask; unchanged ones do not and are undamaged."""
    before = make_scenes(6, side=16, seed=0)
    moved = make_scenes(6, side=16, seed=1)
    unchanged = _mask_effects(before, before, moved.mask)
    assert unchanged["share_followed"][0] == 0
    assert unchanged["damage"][0] == 0
    assert unchanged["dice_with_old"][0] == 1
    reached = _mask_effects(before, moved, moved.mask)
    assert reached["share_followed"][0] == 1
    assert reached["dice_with_new"][0] == 1
    assert reached["damage"][0] > 0


@pytest.mark.parametrize(
    "picture",
    [
        "javascript:alert(1)",
        "https://example.org/a.png",
        "data:image/svg+xml;base64," + base64.b64encode(b"<svg onload='alert(1)'/>").decode(),
        "data:image/png;base64," + base64.b64encode(b"<script>alert(1)</script>").decode(),
        "data:image/png;base64,é",
        "",
    ],
)
def test_only_png_of_the_run_itself_is_drawn(picture: str) -> None:
    table = synthetic_records.frame(
        [
            {"metric": "picture", "value": 1.0, "n": 1, "train_seed": 0, "step": 1, "coords": coords}
            for coords in ({"image": "1", "place": "0", "name": "</script><b>", "picture": picture},)
        ]
    )
    chart = load_view("scenes").draw(table)
    assert empty_reason(chart) == "No picture in this table is a small PNG as a data URL."
    assert "alert" not in json.dumps(chart.to_dict())


def test_without_diffusers_the_study_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(paper_study, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"needs diffusers, which is not installed: pip install 'ontogeny\[diffusion\]'"):
        plan_study("diffusion_scenes", "smoke")
    monkeypatch.setattr(replicate, "paper_study_names", lambda: ["diffusion_scenes", "swing_by"])
    assert [plan.study.name for plan in replicate.plan_replication("smoke")] == ["swing_by"]
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(BadInput, match="diffusers must be installed"):
        open_denoiser(tmp_path)


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("block", "up.7", "block"),
        ("side", 18, "multiple of 4"),
        ("channels", (16, 32), "3 multiples of 8"),
        ("channels", (16, 32, 30), "3 multiples of 8"),
        ("steps", 0, "at least 1"),
        ("denoising", 500, "from 3 to `noise_steps`"),
        ("early", 10, "below `denoising`"),
        ("pushed", 11, "from 1 to `denoising`"),
        ("generated", 4, "at least 12"),
        ("strengths", (0.5, 2.0), "1 among them"),
        ("checkpoints", (0.0, 0.5), "1 among them"),
        ("bound", 0.0, "above 0"),
    ],
)
def test_refuses_settings_that_cannot_be_measured(setting: str, value: object, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        plan_study("diffusion_scenes", "tiny", changes={setting: value})
