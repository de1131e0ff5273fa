"""Functions of a notebook in several processes: what comes back, and what goes wrong."""

import subprocess
from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist

from helpers.distributed import _reason, run_processes


def doubled(number):
    return 2 * number


def summed_ranks():
    value = torch.tensor(float(doubled(dist.get_rank())))
    dist.all_reduce(value)
    return {"sum": value.item(), "processes": dist.get_world_size()}


def failing():
    if dist.get_rank():
        raise ValueError("this batch is empty")
    dist.all_reduce(torch.ones(1))


def test_the_last_function_runs_in_each_process_and_rank_0_answers():
    assert run_processes(doubled, summed_ranks, processes=2) == {"sum": 2.0, "processes": 2}


def test_the_first_failure_is_one_sentence():
    with pytest.raises(RuntimeError, match="2 processes failed: ValueError: this batch is empty$"):
        run_processes(failing, processes=2)


def test_where_processes_cannot_start_or_do_not_end_it_says_why(monkeypatch):
    for error, message in (
        (PermissionError(1, "not permitted"), r"No processes can be started here: .*permitted\.$"),
        (subprocess.TimeoutExpired([], 120), "did not end within 120 seconds: "),
    ):
        monkeypatch.setattr(subprocess, "run", Mock(side_effect=error))
        with pytest.raises(RuntimeError, match=message):
            run_processes(summed_ranks)


def test_without_a_source_it_says_so():
    space = {}
    exec("def unseen(): pass", space)
    with pytest.raises(TypeError, match="define it in a cell or a file"):
        run_processes(space["unseen"])


def test_the_reason_is_the_last_exception_or_the_last_line():
    for stderr, reason in (
        ("[rank1]: KeyError: 'a'\n\n[rank1]: IndexError: b\nwarning\n", "IndexError: b"),
        ("a\nb\n", "b"),
        ("", "no message"),
    ):
        assert _reason(stderr) == reason
