"""What many tests need: small random models, one a family, with a byte-level tokenizer; no network, one thread."""

import os
from pathlib import Path

# Ray reads these once, whoever imports it first; without a token of ours it would keep one in the home.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}

import jaxtyping
import pytest
import torch

from tests.helpers.command_line import Said, Say, command

pytest.register_assert_rewrite("ontogeny.testing")

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"

torch.set_num_threads(1)

# No test cuts the power, so no file needs to reach the disk, which takes milliseconds each. The faults have processes of their own.
os.fsync = lambda _: None  # type: ignore[assignment]

WHOLE_JOBS = {"cli", "dashboard", "docs", "faults", "flows", "hostile", "jobs", "report", "simulation"}
WHOLE_JOB_CONTRACTS = {"test_paper_studies.py", "test_studies.py"}
"""Folders and contracts that call the same functions thousands of times: shapes are checked in the tests of the functions themselves."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check shapes in tests of functions only: in whole jobs the checks would take a quarter of the time."""
    whole = False
    if item.path.is_relative_to(ROOT):
        whole = item.path.relative_to(ROOT / "tests").parts[0] in WHOLE_JOBS or item.path.name in WHOLE_JOB_CONTRACTS
    jaxtyping.config.update("jaxtyping_disable", whole)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data beside the repository, where there is any."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the development data beside the repository")
    return SHARED / "data"


@pytest.fixture(scope="session")
def stories260k(shared: Path) -> Path:
    """A real model of 260 thousand parameters that tells short stories."""
    folder = shared / "models/stories260K/hf"
    if not folder.is_dir():
        pytest.skip("needs stories260K")
    return folder


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """say("list", "probes") -> exit code, output and errors of the command, run in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args: object) -> Said:
        capsys.readouterr()
        return Said(command(*args), *capsys.readouterr())

    return run


@pytest.fixture
def one_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports draw one picture, in a test of something else: all views take seconds."""
    from ontogeny.report import pictures
    from ontogeny.views import load_view

    monkeypatch.setattr(pictures, "load_views", lambda: [load_view("emergence")])


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    """tiny("gpt_neox") -> folder of a two-layer random model with tokenizer; made once a session."""
    from tests.helpers.tiny_models import save_tiny

    made: dict[tuple, Path] = {}

    def make(family: str, *, seed: int = 0) -> Path:
        if (family, seed) not in made:
            made[family, seed] = save_tiny(family, tmp_path_factory.mktemp(f"{family}-{seed}"), seed=seed)
        return made[family, seed]

    return make
