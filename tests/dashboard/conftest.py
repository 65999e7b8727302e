"""A run for the dashboard: two concepts in two stages, one of them with a hostile name."""

from pathlib import Path

import pytest

from ontogeny.storage.run import Run
from tests.helpers import synthetic_records

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script>'{best}"


@pytest.fixture(scope="package")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = synthetic_records.table(sft=True)
    table = table[table["concept"].isin(["truth", "robustness"]) & table["metric"].ne("cosine")]
    table = table.replace({"concept": {"robustness": HOSTILE}, "stage": {"sft": "<b>sft</b>"}})
    about = synthetic_records.about(sft=True)
    about["lineage"]["name"] = "<i>tiny</i>"
    about["lineage"]["stages"][1] = "<b>sft</b>"
    about["concepts"] = [about["concepts"][0], about["concepts"][4] | {"name": HOSTILE}]
    for checkpoint in about["lineage"]["checkpoints"]:
        checkpoint["stage"] = checkpoint["stage"].replace("sft", "<b>sft</b>")
    run = Run(tmp_path_factory.mktemp("dashboard") / "demo")
    run.describe(about)
    run.keep("all", synthetic_records.as_records(table))
    return run.folder
