"""The bare command on a fresh machine: `recalign align --objective blade --reward ndcg` in an empty folder."""

import json
import os
import resource
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_gains_ndcg_on_held_out_users_beyond_doubt(tmp_path, seed):
    command = [sys.executable, "-m", "recalign", "align", "--objective", "blade", "--reward", "ndcg", "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "RECALIGN_HOME"}
    done = subprocess.run(
        [*command, "--seed", str(seed)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for line in ("No dataset is prepared", "No model is trained", "reference lists"):
        assert line in done.stderr
    results = json.loads(done.stdout)
    assert results["report"]["ndcg@5"]["difference"]["low"] > 0
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"data", "sft", "references", "align-blade-ndcg"}
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2 * 1024**2  # KiB: 2 GiB
