"""Static export: one page that opens from disk, with the numbers of the endpoints, and hostile names as text."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nicegui", reason="needs the extra dashboard")
from ontogeny.dashboard import export
from ontogeny.dashboard.atlas import atlas_cells, cell_values
from ontogeny.dashboard.export import export_site
from ontogeny.dashboard.selection import Selection
from ontogeny.dashboard.shown_run import ShownRuns
from ontogeny.errors import BadInput
from ontogeny.views import load_view
from tests.dashboard.conftest import HOSTILE


@pytest.fixture(scope="module")
def page(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:  # the other views take seconds to draw
        patch.setattr(export, "load_views", lambda: [load_view("emergence"), load_view("layers")])
        return export_site(ShownRuns([run_folder]).first, tmp_path_factory.mktemp("site") / "out")


def held(page: Path, name: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found is not None
    return json.loads(found[1])


def test_the_page_holds_every_checkpoint(page: Path, run_folder: Path) -> None:
    site, data = held(page, "site"), held(page, "data")
    shown = ShownRuns([run_folder]).first
    described = shown.describe()
    chosen = Selection(metric="auroc", part="resid").fitted(described)
    for index in (0, len(described["checkpoints"]) - 1):
        moment = site["described"]["checkpoints"][index]
        expected = cell_values(atlas_cells(shown, chosen).at(moment["stage"], moment["address"]))
        assert data[f"cells/auroc/resid/{index}"]["cells"] == expected
    assert [panel["name"] for panel in site["panels"]] == ["findings", "atlas", "emergence", "layers"]
    for panel in site["panels"]:
        assert panel["name"] in ("findings", "atlas") or data[f"charts/{panel['name']}"]["tabs"]


def test_the_page_allows_its_own_scripts_only(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "<i>tiny</i>" not in text
    assert "default-src 'none'" in text
    assert re.findall(r'(?:src|href)="[^"]+"', re.sub(r"(?s)<script.*?</script>", "", text)) == []


def test_an_export_replaces_no_file_of_a_run(run_folder: Path, tmp_path: Path) -> None:
    shown = ShownRuns([run_folder]).first
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="must be a folder"):
        export_site(shown, tmp_path / "file")
    with pytest.raises(BadInput, match="part of the run"):
        export_site(shown, run_folder / "records")
