"""The exercises of the notebooks as data, a file for each subject.

Words between backticks are code. `exercises.check`, `hint` and `solution` show them.
"""

from helpers.course.checkers import (
    batchnorm,
    cost,
    faster_rcnn,
    frozen_batchnorm,
    input_scaling,
    small_batches,
    two_backbones,
)
from helpers.course.checkers.task import Task, Verdict, markup, panel

__all__ = ["TASKS", "Task", "Verdict", "markup", "panel"]

TASKS: dict[str, Task] = (
    two_backbones.TASKS
    | batchnorm.TASKS
    | frozen_batchnorm.TASKS
    | small_batches.TASKS
    | input_scaling.TASKS
    | faster_rcnn.TASKS
    | cost.TASKS
)
