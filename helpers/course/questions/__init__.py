"""The questions of the notebooks as data, a file for each subject.

Words between backticks are code. `exercises.predict` and `exercises.quiz` show them.
"""

from helpers.course.questions import (
    batchnorm,
    cost,
    faster_rcnn,
    frozen_batchnorm,
    input_scaling,
    small_batches,
    two_backbones,
)
from helpers.course.questions.question import Option, Question

__all__ = ["QUESTIONS", "Option", "Question"]

QUESTIONS: dict[str, Question] = (
    two_backbones.QUESTIONS
    | batchnorm.QUESTIONS
    | frozen_batchnorm.QUESTIONS
    | small_batches.QUESTIONS
    | input_scaling.QUESTIONS
    | faster_rcnn.QUESTIONS
    | cost.QUESTIONS
)
