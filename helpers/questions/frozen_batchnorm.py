"""What freezing is."""

from helpers.questions.question import Question

QUESTIONS: dict[str, Question] = {}
