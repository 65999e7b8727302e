"""The listed cases of hostile input: for each what is made of a good place, the command, and the one line that must follow."""

from tests.hostile import checkpoints, concepts, directions, lineages, options, runs
from tests.hostile.making import Case

KINDS = (runs, lineages, checkpoints, concepts, directions, options)
CASES: dict[str, tuple[Case, str]] = {name: case for kind in KINDS for name, case in kind.CASES.items()}
assert len(CASES) == sum(len(kind.CASES) for kind in KINDS), "two cases of one name"
