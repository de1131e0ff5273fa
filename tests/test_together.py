"""Functions of a notebook in several processes: what comes back, and what goes wrong."""

import subprocess

import pytest
import torch
import torch.distributed as dist

from helpers import distributed as module
from helpers.distributed import run_processes


def doubled(number):
    return 2 * number


def summed_ranks():
    value = torch.tensor(float(doubled(dist.get_rank())))
    dist.all_reduce(value)
    return {"sum": value.item(), "processes": dist.get_world_size()}


def failing():
    raise ValueError("this batch is empty")


def test_the_last_function_runs_in_each_process_and_rank_0_answers():
    assert run_processes(doubled, summed_ranks, processes=2) == {"sum": 2.0, "processes": 2}


def test_a_failing_function_is_one_sentence():
    with pytest.raises(RuntimeError, match="2 processes failed: ValueError: this batch is empty$"):
        run_processes(failing, processes=2)


def test_where_processes_cannot_be_started_it_says_why(monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(RuntimeError, match=r"No processes can be started here: .*not permitted\.$"):
        run_processes(summed_ranks)


def test_where_processes_wait_for_each_other_it_ends(monkeypatch):
    def wait(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", wait)
    with pytest.raises(RuntimeError, match="did not end within 120 seconds: "):
        run_processes(summed_ranks)


def test_without_a_source_it_says_so():
    space = {}
    exec("def unseen(): pass", space)
    with pytest.raises(TypeError, match="define it in a cell or a file"):
        run_processes(space["unseen"])


def test_the_reason_is_the_first_exception_or_the_last_line():
    assert module._reason("[rank1]: Traceback\n[rank1]: KeyError: 'a'\nChildFailedError:\n") == (
        "KeyError: 'a'"
    )
    assert module._reason("a\nb\n") == "b"
    assert module._reason("") == "no message"
