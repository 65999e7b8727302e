"""`ontogeny study run --dry-run` refuses what the run itself would refuse."""

from pathlib import Path

import pytest

from ontogeny.cli.study import run_one_study
from ontogeny.errors import BadInput


@pytest.mark.parametrize("shard", ["5/3", "-1/2", "half"])
def test_dry_run_refuses_a_share_that_there_is_not(shard: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="must be i/n"):
        run_one_study("percolation", tmp_path, shard=shard, dry_run=True)
