import os
import subprocess
import sys
from pathlib import Path

import pytest

from recalign import huge_pages

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SCRIPT = """
import os
from recalign.cli import main
try:
    main(["--version"])
except SystemExit:
    pass
import torch
held = torch.ones(16 * 2**20)
pages = open("/proc/self/smaps_rollup").read()
print(next(line.split()[1] for line in pages.splitlines() if line.startswith("AnonHugePages")))
"""


def huge_kb(**environment):
    """KB in huge pages of a process that ran a command and holds a tensor of 64 MB."""
    clean = {name: value for name, value in os.environ.items() if name != huge_pages.VARIABLE}
    command = [sys.executable, "-c", SCRIPT]
    ran = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    return int(ran.stdout.split()[-1])


@pytest.mark.skipif(
    not SETTING.is_file() or "[madvise]" not in SETTING.read_text(),
    reason="the system gives nobody who asks huge pages",
)
def test_a_command_s_tensors_lie_in_huge_pages_unless_the_environment_says_no():
    assert huge_kb() >= 32 * 1024
    assert huge_kb(**{huge_pages.VARIABLE: "0"}) < 32 * 1024


def test_what_the_environment_says_stands(monkeypatch):
    monkeypatch.setenv(huge_pages.VARIABLE, "0")
    huge_pages.ask()
    assert os.environ[huge_pages.VARIABLE] == "0"
    monkeypatch.delenv(huge_pages.VARIABLE)
    huge_pages.ask()
    assert os.environ[huge_pages.VARIABLE] == "1"
