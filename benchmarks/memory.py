"""Memory of processes in MB of 2**20 bytes."""

import re
from pathlib import Path

import psutil

STATUS = Path("/proc/self/status")


def rss_mb() -> float:
    """Measure what it holds now."""
    return psutil.Process().memory_info().rss / 2**20


def peak_mb() -> float:
    """Measure the most it has held since it started."""
    if STATUS.exists():  # Linux's getrusage begins with the memory of the process that started it
        return int(re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())[1]) / 2**10
    if hasattr(info := psutil.Process().memory_info(), "peak_wset"):  # Windows
        return info.peak_wset / 2**20
    import resource  # which Windows lacks

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def rollup_mb(pid: int) -> dict[str, float]:
    """Read Linux's sums over a process's memory, by their names there.

    In `Pss`, the proportional set size, a page that n processes share counts as 1/n of a page, so
    that those of all processes add up to what they take.
    """
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(kb) / 2**10 for name, kb in re.findall(r"(\w+):\s+(\d+) kB", text)}
