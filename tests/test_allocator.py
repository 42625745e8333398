"""Freed memory stays with the process."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from lightning_mav.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(2**26)
before = faults()
for _ in range(10):
    bytearray(2**26)
print(faults() - before)
"""


def page_faults(how: str) -> int:
    run = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's allocator is told")
def test_large_blocks_are_reused_and_not_returned_to_the_kernel():
    assert page_faults("kept") * 100 < page_faults("returned")
