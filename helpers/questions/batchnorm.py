"""What BatchNorm computes."""

from helpers.questions.question import Question

QUESTIONS: dict[str, Question] = {}
