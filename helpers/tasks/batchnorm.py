"""Exercises on what BatchNorm computes."""

from helpers.tasks.task import Task

TASKS: dict[str, Task] = {}
