"""Exercises on what freezing is."""

from helpers.tasks.task import Task

TASKS: dict[str, Task] = {}
