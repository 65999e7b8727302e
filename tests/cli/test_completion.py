"""Completion in the shell: commands, options and names of plug-ins, without loading anything heavy."""

import json
import subprocess
import sys

import pytest

_ASK = """
import io, json, os, sys
from contextlib import redirect_stdout
from ontogeny import cli
answers = []
for words in json.load(sys.stdin):
    os.environ |= {"_ONTOGENY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    sys.argv, said = ["ontogeny"], io.StringIO()
    with redirect_stdout(said):
        try:
            cli.app(prog_name="ontogeny")
        except SystemExit:
            pass
    answers.append(said.getvalue().split())
print(json.dumps([answers, [name for name in ("torch", "transformers", "pandas", "duckdb") if name in sys.modules]]))
"""
CASES = {
    "ontogeny tr": ["trace", "transfer", "train"],
    "ontogeny trace --st": ["--steps"],
    "ontogeny trace run -c truth_c": ["truth_capitals", "truth_cities", "truth_common_claims", "truth_companies"],
    "ontogeny evaluate run -m ca": ["caa"],
    "ontogeny show run emer": ["emergence"],
    "ontogeny list conc": ["concepts"],
}


@pytest.fixture(scope="module")
def answers() -> tuple[dict[str, list[str]], list[str]]:
    ended = subprocess.run(
        [sys.executable, "-c", _ASK], input=json.dumps(list(CASES)), capture_output=True, text=True, check=True
    )
    found, heavy = json.loads(ended.stdout.splitlines()[-1])
    return dict(zip(CASES, found, strict=True)), heavy


def test_commands_options_and_plugins_are_completed(answers) -> None:
    found, heavy = answers
    assert found == CASES
    assert heavy == []
