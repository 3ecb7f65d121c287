"""The allocator keeps what is freed."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from kshot.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
def work():
    torch.empty(2**24).fill_(1.0)  # 64 MiB
for _ in range(2):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep):
    command = [sys.executable, "-c", PROGRAM.format(keep=keep)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's allocator is told")
def test_large_blocks_are_reused():
    assert faults(keep=True) < 0.5 * faults(keep=False)
