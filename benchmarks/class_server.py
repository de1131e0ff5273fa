"""What a class's server needs: kernels of notebook 01, each run from top to bottom and kept alive.

    python -m benchmarks.class_server --kernels 10               one begins after the other
    python -m benchmarks.class_server --kernels 10 --at-once 10  all begin together
    python -m benchmarks.class_server --default-malloc           without SETTINGS

Linux only. It refuses to start where less than 1.2 GB for each kernel is free.
"""

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from subprocess import DEVNULL
from time import perf_counter

import psutil
from jupyter_client.manager import KernelManager
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager
from tqdm import tqdm

from benchmarks.memory import rollup_mb
from benchmarks.notebooks import PNG
from benchmarks.report import emit, settle, skip
from notebooks import make

# As docs/jupyterhub.md says. With any threshold set, glibc no longer raises it: what a kernel frees
# goes back to the system, where it would else be kept for the next large tensor.
SETTINGS = {"OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "131072"}
MOST_MB, LIMIT_MB, LIMIT_SECONDS = 1200, 700, 12
COLUMNS = ("Pss", "Pss_Anon", "Pss_File", "Rss")


def run(sources: list[str], settings: dict[str, str], kernels: ExitStack) -> dict[str, float]:
    """Run these cells in a new kernel, with `settings` in its environment.

    It lives until `kernels` closes. Return the process's id, the seconds to the last cell, and
    those to the first PNG if there is one; both include the start of the kernel. Raise RuntimeError
    for a cell that fails.
    """
    begin = perf_counter()
    done = {}
    manager = KernelManager(
        kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager()
    )
    paths = filter(None, [str(make.ROOT), os.environ.get("PYTHONPATH")])
    environment = os.environ | settings | {"PYTHONPATH": os.pathsep.join(paths)}
    manager.start_kernel(cwd=str(make.NOTEBOOKS), env=environment, stderr=DEVNULL)
    kernels.callback(manager.shutdown_kernel, now=True)
    client = manager.blocking_client()
    client.start_channels()
    kernels.callback(client.stop_channels)
    client.wait_for_ready(timeout=make.SECONDS_PER_CELL)

    def shown(message):
        if PNG in message["content"].get("data", {}):
            done.setdefault("seconds_to_first_png", perf_counter() - begin)

    for source in sources:
        reply = client.execute_interactive(
            source, timeout=make.SECONDS_PER_CELL, output_hook=shown, store_history=False
        )
        if reply["content"]["status"] != "ok":
            fault = reply["content"].get("evalue", reply["content"]["status"])
            raise RuntimeError(f"A cell of the notebook fails in this kernel: {fault}")
    return done | {"pid": manager.provisioner.pid, "seconds": perf_counter() - begin}


def measure(
    sources: list[str], count: int, at_once: int, settings: dict[str, str]
) -> list[dict[str, float]]:
    """Run the cells in `count` kernels, and measure each one's memory while all are alive."""
    with ExitStack() as kernels, ThreadPoolExecutor(at_once) as pool:
        runs = pool.map(partial(run, settings=settings, kernels=kernels), [sources] * count)
        rows = list(tqdm(runs, "kernels", count, disable=None))
        return [row | rollup_mb(row["pid"]) for row in rows]


def main(given: list[str] | None = None) -> int:
    """Measure and print a table, and the largest numbers; return 1 if CI cannot measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernels", type=int, default=10)
    parser.add_argument("--at-once", type=int, default=1, help="how many run at a time")
    parser.add_argument("--default-malloc", action="store_true", help="measure without SETTINGS")
    parser.add_argument("--notebook", default="01_two_backbones")
    options = parser.parse_args(given)
    if options.kernels < 1 or options.at_once < 1:
        parser.error("--kernels and --at-once are 1 or more.")
    if not Path("/proc/self/smaps_rollup").exists():
        reason = "The kernel's /proc/PID/smaps_rollup is missing: this runs on Linux only."
        return skip("kernel_pss_mb", "MB", LIMIT_MB, reason)
    free, asked = psutil.virtual_memory().available / 2**20, options.kernels * MOST_MB
    if free < asked:
        parser.error(f"{asked} MB should be free, and {free:.0f} MB are: fewer --kernels do.")
    settle()
    nb = make.loads(make.find(options.notebook).read_text(encoding="utf-8"))
    sources = [cell.source for cell in nb.cells if cell.cell_type == "code"]
    settings = {} if options.default_malloc else SETTINGS
    rows = measure(sources, options.kernels, options.at_once, settings)
    print("kernel  first picture  whole notebook" + "".join(f"{c:>12}" for c in COLUMNS))
    for number, row in enumerate(rows, 1):
        first, memory = row.get("seconds_to_first_png", float("nan")), [row[c] for c in COLUMNS]
        print(f"{number:6}  {first:11.1f} s  {row['seconds']:12.1f} s", end="")
        print("".join(f"{mb:9.0f} MB" for mb in memory))
    total = sum(row["Pss"] for row in rows)
    emit("kernels_pss_mb", total, "MB", LIMIT_MB * len(rows))
    emit("largest_kernel_pss_mb", max(row["Pss"] for row in rows), "MB", LIMIT_MB)
    first = [row["seconds_to_first_png"] for row in rows if "seconds_to_first_png" in row]
    if first:
        emit("median_seconds_to_first_png", median(first), "s", LIMIT_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
