"""Functions of a notebook, run in several processes that know one another."""

import inspect
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from textwrap import dedent
from typing import Any

ATTEMPTS = 2  # on a busy machine a connection between processes fails now and then
SECONDS = 120  # to wait for the processes, which first import torch each

# The processes find one another by a file: torchrun needs libuv, which Windows' wheels lack.
SCRIPT = """\
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

{functions}


rank, size = map(int, sys.argv[1:])
torch.set_num_threads(1)
dist.init_process_group("gloo", store=dist.FileStore("store", size), rank=rank, world_size=size)
result = {main}()
dist.barrier()
if rank == 0:
    Path("answer.json").write_text(json.dumps(result))
dist.destroy_process_group()
"""


def run_processes(*functions: Callable, processes: int = 4) -> Any:
    """Call the last of `functions` in several processes, and return the result of rank 0.

    The source of all functions goes into a script that knows `torch`, `nn` and `dist` (that is
    torch.distributed, its process group initialized with gloo), and nothing else of the caller's.
    The last function takes no arguments and returns what JSON can hold. Raises RuntimeError where
    processes cannot be started, fail, or take more than two minutes, and TypeError for a function
    whose source cannot be read.
    """
    try:
        sources = [dedent(inspect.getsource(function)) for function in functions]
    except OSError:
        raise TypeError("A function has no source here: define it in a cell or a file.") from None
    script = SCRIPT.format(functions="\n\n".join(sources), main=functions[-1].__name__)
    for _ in range(ATTEMPTS):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            Path(folder, "script.py").write_text(script, encoding="utf-8")

            def run(rank: int, folder: str = folder) -> subprocess.CompletedProcess:
                command = [sys.executable, "script.py", str(rank), str(processes)]
                pipes = {"capture_output": True, "text": True, "errors": "replace"}
                return subprocess.run(command, cwd=folder, timeout=SECONDS, **pipes)

            try:
                with ThreadPoolExecutor(processes) as pool:
                    running = [pool.submit(run, rank) for rank in range(processes)]
                    ended = [one.result() for one in as_completed(running)]
            except OSError as error:
                raise RuntimeError(f"No processes can be started here: {error}.") from None
            except subprocess.TimeoutExpired:
                raise RuntimeError(
                    f"The {processes} processes did not end within {SECONDS} seconds: a machine "
                    "that allows no connections between its own processes makes them wait."
                ) from None
            answer = Path(folder, "answer.json")
            if answer.exists():  # all have finished; how they then part is of no matter
                return json.loads(answer.read_text())
    failed = next((process.stderr for process in ended if process.returncode), "")
    raise RuntimeError(f"The {processes} processes failed: {_reason(failed)}")


def _reason(stderr: str) -> str:
    """Find the last exception that a process reports, or else the last line."""
    lines = [line.partition("]: ")[2] or line for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.partition(":")[0].endswith(("Error", "Exception"))]
    return (errors or lines or ["no message"])[-1]
