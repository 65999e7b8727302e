"""The benchmark of steered generation in small: what is timed says the same as a bare hook, and another thing than the plain model."""

import json

import pytest

from benchmarks import steering, workload
from benchmarks.scripts import run_steered


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workload, "ROOT", tmp_path_factory.mktemp("work"))
        return workload.make("tiny", 64, 1)


def test_what_is_timed_says_what_a_bare_hook_says(work, monkeypatch):
    monkeypatch.setattr(run_steered, "LAYER", 1)
    rows = [row[:12] for row in json.loads(work.ids.read_text())["ids"] if len(row) >= 12][:4]
    ours, hook = (run_steered.TOOLS[name](work.checkpoints[0], rows, 5) for name in ("ours", "hook"))
    for mine, theirs in zip(ours, hook, strict=True):
        assert mine() == [[int(token) for token in row] for row in theirs()]
    assert ours[0]() != ours[1]()
    last = run_steered.TOOLS["ours_last"](work.checkpoints[0], rows, 5)
    assert ours[0]() == last[0]()


def test_a_line_tells_the_ratio_of_each_round_and_whether_it_holds():
    found = {"seconds": {"plain": [1.0, 2.0, 4.0], "steered": [1.05, 2.2, 4.0]}, "said": {"steered": "abc"}}
    assert steering.ratios(found) == pytest.approx([1.05, 1.1, 1.0])
    assert steering.line("Ontogeny", found) == "| Ontogeny | 1.050 (1.000–1.100) ✓ | 2.00, 2.20 | abc |"
    slow = {**found, "seconds": {"plain": [1.0], "steered": [1.3]}}
    assert "above 1.1" in steering.line("Ontogeny", slow)
    assert "above" not in steering.line("pyvene", slow)
