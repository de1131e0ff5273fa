"""Functions of a notebook, run in several processes under torchrun."""

import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

ATTEMPTS = 2  # on a busy machine a connection between processes fails now and then
SECONDS = 120  # to wait for the processes, which first import torch each

SCRIPT = """\
import json
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

{functions}


torch.set_num_threads(1)
dist.init_process_group("gloo")
result = {main}()
dist.barrier()
if dist.get_rank() == 0:
    part = Path({answer!r} + ".part")
    part.write_text(json.dumps(result))
    part.rename({answer!r})
dist.destroy_process_group()
"""


def run_processes(*functions: Callable, processes: int = 4) -> Any:
    """Call the last of `functions` in several processes, and return the result of rank 0.

    The source of all functions goes into a script that knows `torch`, `nn` and `dist` (that is
    torch.distributed, its process group initialized with gloo), and nothing else of the caller's.
    The last function takes no arguments and returns what JSON can hold. The script runs under
    `torchrun --standalone --nproc-per-node processes`. Each process takes about 3 s of processor
    time to import torch.

    Raises RuntimeError where processes cannot be started, fail, or take more than two minutes, and
    TypeError for a function whose source cannot be read.
    """
    try:
        sources = [dedent(inspect.getsource(function)) for function in functions]
    except OSError:
        said = "A function's source cannot be read: define it in a cell or a file."
        raise TypeError(said) from None
    with tempfile.TemporaryDirectory() as folder:
        script, answer = Path(folder, "script.py"), Path(folder, "answer.json")
        script.write_text(
            SCRIPT.format(
                functions="\n\n".join(sources), main=functions[-1].__name__, answer=str(answer)
            ),
            encoding="utf-8",
        )
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(processes), str(script)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_MODULE_LOADING": "LAZY"}
        for _ in range(ATTEMPTS):
            try:
                ended = subprocess.run(
                    command, env=environment, capture_output=True, text=True, timeout=SECONDS
                )
            except OSError as error:
                raise RuntimeError(f"No processes can be started here: {error}.") from None
            except subprocess.TimeoutExpired:
                raise RuntimeError(
                    f"The {processes} processes did not end within {SECONDS} seconds: a machine "
                    "that allows no connections between its own processes makes them wait."
                ) from None
            if answer.exists():  # all have finished; how they then part is of no matter
                return json.loads(answer.read_text())
        raise RuntimeError(f"The {processes} processes failed: {_reason(ended.stderr)}")


def _reason(stderr: str) -> str:
    """Find the first exception that a process reports, or else the last line."""
    lines = [line.partition("]: ")[2] or line for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.partition(":")[0].endswith(("Error", "Exception"))]
    return (errors or lines or ["no message"])[0 if errors else -1]
