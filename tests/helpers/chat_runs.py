"""A traced run of a model that takes its user to be one of two kinds, and answers by it: what is read and what is said is known."""

from pathlib import Path

import pytest

import ontogeny as on
from ontogeny.gauges.pack import GaugePack
from ontogeny.gauges.packing import PackSettings
from ontogeny.jobs.gauges import gauges, plan_gauges
from ontogeny.lineage import Lineage
from ontogeny.storage.run import Run
from tests.helpers.planted_lineages import CHARACTERS, coin, rows, save_run, write

CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}{{ m.content }};{% endif %}{% endfor %}"
)
"""The user's words end the prompt, as they end the texts of the concept."""
STAGE, EARLY, LATE = "pretrain", "1000", "3000"
YES, NO = (next(c for c in CHARACTERS[:20] if coin(c) is kind) for kind in (True, False))
"""Characters of the two classes."""


_made: dict[Path, Run] = {}
_packs: dict[Path, GaugePack] = {}


def chat_run(factory: pytest.TempPathFactory) -> Run:
    """Two checkpoints: at step 1000 nothing of the concept is there, at step 3000 it is read and answered by.

    It is made once a session; token scores may be written to it, nothing else.
    """
    if factory.getbasetemp() not in _made:
        _made[factory.getbasetemp()] = _make(factory.mktemp("chat"))
    return _made[factory.getbasetemp()]


def chat_pack(factory: pytest.TempPathFactory) -> GaugePack:
    """A gauge pack of the last checkpoint, made once a session, with a hostile name of a class."""
    if factory.getbasetemp() not in _packs:
        home, lineage = (
            factory.mktemp("pack"),
            Lineage.open(chat_run(factory).about["lineage"]["source"]).select("last"),
        )
        write(home / "planted.csv", rows(characters=24, answers=True))
        concepts, settings = [on.load_concept(home / "planted.csv")], PackSettings(suffix="", controls=39)
        users = ["planted=<b>tails</b>,heads"]
        plan = plan_gauges(lineage.checkpoints[-1], concepts, settings, template=CHAT_TEMPLATE, users=users)
        _packs[factory.getbasetemp()] = gauges(plan, lineage, home / "pack")
    return _packs[factory.getbasetemp()]


def _make(home: Path) -> Run:
    save_run(home / "sft", {1000: 0.0, 3000: 8.0}, answers={3000: 2.0}, context=256)
    write(home / "planted.csv", rows(characters=20))
    settings = on.TraceSettings(sites="resid", resamples=100, permutations=100, untrained=False)
    return on.trace(str(home / "sft"), str(home / "planted.csv"), home / "run", settings=settings)
