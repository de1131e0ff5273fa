"""Exercises: solutions pass, plausible mistakes are named, and nothing raises for a reader."""

import math

import nbformat
import numpy as np
import pytest
import torch
import wrong_batchnorm
import wrong_cost
import wrong_faster_rcnn
import wrong_frozen_batchnorm
import wrong_input_scaling
import wrong_small_batches
from nbclient import NotebookClient

from helpers.course import exercises
from helpers.course.checkers import TASKS, Verdict
from helpers.course.exercises import check, hint, predict, quiz, solution
from helpers.course.questions import QUESTIONS


def answer(key):
    namespace = {"torch": torch, "nn": torch.nn}
    exec(TASKS[key].solution, namespace)
    return list(namespace.values())[-1]


def in_place(running_var, eps_trained, eps_layer):
    running_var += eps_trained - eps_layer
    return running_var


def bound(a):
    return 1e-5 * a.abs().max()


def almost_equal(a, b):
    try:
        np.testing.assert_almost_equal(a.numpy(), b.numpy())
    except AssertionError:
        return False
    return True


def close(a, b):
    try:
        torch.testing.assert_close(a, b)
    except AssertionError:
        return False
    return True


WRONG = {
    "01-tolerance": [
        (almost_equal, "absolute tolerance asks"),
        (lambda a, b: (a - b).abs().max() <= 1e-5, "absolute tolerance asks"),
        (lambda a, b: (a - b).abs().max() <= 1e3, "absolute tolerance lets"),
        (close, "absolute tolerance lets"),
        (lambda a, b: ((a - b).abs() <= 1e-5 * a.abs()).all(), "each element allows nothing"),
        (lambda a, b: torch.allclose(a, b, rtol=1e-5, atol=0), "each element allows nothing"),
        (lambda a, b: (a - b).abs().mean() <= bound(a), "A mean hides it"),
        (lambda a, b: (a - b).abs().mean() <= 1e-5 * a.abs().mean(), "A mean hides it"),
        (lambda a, b: (a - b).max() <= bound(a), "signed difference"),
        (lambda a, b: (a - b).max().abs() <= bound(a), "signed difference"),
        (lambda a, b: (a.max() - b.max()).abs() <= bound(a), "two maxima"),
        (lambda a, b: (a - b).abs().max() <= 1e-5 * a.max(), "`max(a)` is 0"),
        (torch.equal, "identical bits"),
        (lambda a, b: bool((a == b).all()), "identical bits"),
        (lambda a, b: (a - b).abs().max() <= 10 * bound(a), "2e-05 of `max|a|` must not pass"),
        (lambda a, b: (a - b).abs().max() <= bound(a) / 3, "5e-06 of `max|a|` must pass"),
        (lambda a, b: (a - b).abs().max() < bound(a), "two maps of zeros"),
        (lambda a, b: (a - b).abs().max() / a.abs().max() <= 1e-5, "two maps of zeros"),
        (lambda a, b: not (a - b).abs().max() > bound(a), "NaN in a must give False"),
        (lambda a, b: (a - b).abs() <= bound(a), "one True or False"),
        (lambda a, b: float((a - b).abs().max() <= bound(a)), "one True or False"),
    ],
    "01-eps-mend": [
        (lambda v, t, e: v - t + e, "sign is turned round"),
        (lambda v, t, e: v * t / e, "no factor mends it"),
        (lambda v, t, e: v * (t / e), "no factor mends it"),
        (lambda v, t, e: v + t, "the layer adds eps_layer on top"),
        (lambda v, t, e: v - e, "eps_trained is missing"),
        (in_place, "in place"),
        (lambda v, t, e: v.add_(t).sub_(e).clone(), "in place"),
        (lambda v, t, e: (v + t - e).sqrt(), "store a variance, not its root"),
        (lambda v, t, e: v, "the answer is 0.10099, and yours is 0.10000"),
        (lambda v, t, e: (v + t - e).mean(), "one value for each channel"),
        (lambda v, t, e: (v + t - e).tolist(), "one value for each channel"),
    ],
    "01-gain": [
        (lambda v, t, e: (v + t) / (v + e), "without the square root"),
        (lambda v, t, e: ((v + e) / (v + t)).sqrt(), "inverted. A smaller eps"),
        (lambda v, t, e: (v + e) / (v + t), "inverted, and without the square root"),
        (lambda v, t, e: (v.sqrt() + t) / (v.sqrt() + e), "eps stands outside the root"),
        (lambda v, t, e: (v + t).rsqrt(), "the answer is 1.00494, and yours is 3.14658"),
        (lambda v, t, e: math.sqrt((v + t) / (v + e)), "your code raises"),
    ],
}
WRONG |= wrong_batchnorm.WRONG | wrong_frozen_batchnorm.WRONG
WRONG |= wrong_small_batches.WRONG | wrong_input_scaling.WRONG | wrong_faster_rcnn.WRONG
WRONG |= wrong_cost.WRONG
CASES = [(key, attempt, says) for key, cases in WRONG.items() for attempt, says in cases]


@pytest.mark.parametrize("key", TASKS)
def test_solution_is_right(key):
    verdict = check(key, answer(key))
    assert verdict.ok is True
    assert repr(verdict).startswith("Right: ")


@pytest.mark.parametrize(("key", "attempt", "says"), CASES)
def test_mistake_is_named(key, attempt, says):
    verdict = check(key, attempt)
    assert verdict.ok is False
    assert repr(verdict).startswith("Not yet: ")
    assert says in repr(verdict)
    assert repr(check(key, attempt)) == repr(verdict)


@pytest.mark.parametrize("key", TASKS)
def test_each_task_has_mistakes(key):
    assert WRONG[key]
    task = TASKS[key]
    assert task.difficulty in (1, 2, 3) and task.minutes > 0 and len(task.hints) >= 2


@pytest.mark.parametrize("key", TASKS)
@pytest.mark.parametrize("untouched", [..., None, lambda *_: None, lambda *_: ...])
def test_untouched_is_not_attempted(key, untouched):
    verdict = check(key, untouched)
    assert verdict.ok is None
    assert repr(verdict).startswith("Not attempted yet: ")


@pytest.mark.parametrize("key", TASKS)
def test_attempt_that_raises_is_one_sentence(key):
    def attempt(*_):
        raise RuntimeError("first line\nsecond line")

    said = repr(check(key, attempt))
    assert said == "Not yet: your code raises RuntimeError: first line"
    assert "takes 0 positional arguments" in repr(check(key, lambda: 1))
    assert "no message" in repr(check(key, lambda *_: next(iter(()))))


def test_result_in_place_of_the_function_is_named():
    assert "the function itself" in repr(check("01-gain", torch.ones(4)))


@pytest.mark.parametrize("kind", [bool, torch.tensor, np.bool_])
def test_a_truth_value_of_any_kind_is_accepted(kind):
    right = answer("01-tolerance")
    assert check("01-tolerance", lambda a, b: kind(right(a, b))).ok


def test_mended_layer_computes_what_was_trained():
    """Held against torch's own layer: the mend is exact, and the gain is the factor it was off."""
    generator = torch.Generator().manual_seed(0)
    x, v = (torch.rand(n, generator=generator, dtype=torch.float64) for n in (64, 8))
    x = x.reshape(1, 8, 2, 4)

    def run(running_var, eps):
        return torch.nn.functional.batch_norm(x, torch.zeros_like(v), running_var, eps=eps)

    mended = answer("01-eps-mend")(v, 1e-3, 1e-5)
    factor = answer("01-gain")(v, 1e-3, 1e-5).reshape(1, 8, 1, 1)
    torch.testing.assert_close(run(mended, 1e-5), run(v, 1e-3))
    torch.testing.assert_close(run(v, 1e-5), run(v, 1e-3) * factor)


def test_verdict_shows_itself_once_and_says_it_in_words():
    verdict = Verdict(False, "`a < b` & more")
    assert repr(verdict) == "Not yet: `a < b` & more"
    assert "<strong>Not yet:</strong> <code>a &lt; b</code> &amp; more" in verdict._repr_html_()


def test_hints_rise_and_end_at_the_solution(monkeypatch):
    monkeypatch.setattr(exercises, "_hints_shown", type(exercises._hints_shown)())
    first, second, third, fourth = (repr(hint("01-gain")) for _ in range(4))
    assert first.startswith("Hint 1 of 2: ") and "Hint 2" not in first
    assert second.startswith(first + "\n\nHint 2 of 2: ")
    assert third.startswith(second) and 'solution("01-gain")' in third
    assert fourth == third
    assert "Hint 2" not in hint("01-eps-mend")


@pytest.mark.parametrize("key", TASKS)
def test_solution_shows_the_source(key):
    shown = solution(key)
    assert TASKS[key].solution in repr(shown)
    assert shown._repr_markdown_().startswith("```python\n")
    assert repr(shown) == shown._repr_markdown_()


@pytest.mark.parametrize(
    ("call", "near"),
    [
        (lambda: check("01-tolerence", ...), "There is no exercise '01-tolerence'; near it: 01-t"),
        (lambda: hint("01-gian"), "01-gain"),
        (lambda: solution("nothing"), "01-eps-mend, 01-gain, 01-tolerance"),
        (lambda: predict("01-suspect"), "There is no question '01-suspect'; near it: 01-suspects"),
        (lambda: quiz("01-q-eval", "01-q-evl"), "There is no question '01-q-evl'; near it: 01-q-e"),
    ],
)
def test_unknown_key_is_one_sentence_with_near_keys(call, near):
    with pytest.raises(LookupError) as raised:
        call()
    assert near in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def notebook():
    """predict, quiz and an untouched check as a notebook stores them, with widget state."""
    sources = (
        "from helpers.course.exercises import check, predict, quiz",
        'predict("01-suspects")',
        'quiz("01-q-eval", "01-q-today")',
        'check("01-gain", ...)',
    )
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=60).execute()


def stored(notebook, cell):
    (output,) = notebook.cells[cell].outputs
    return output["data"]


def test_stored_text_is_the_question_and_its_options(notebook):
    text = stored(notebook, 1)["text/plain"]
    question = QUESTIONS["01-suspects"]
    lines = [f"   {x}. {o.text}" for x, o in zip("ABCD", question.options, strict=True)]
    assert text.splitlines() == [question.text, *lines]


def test_stored_quiz_is_numbered_in_one_output(notebook):
    text = stored(notebook, 2)["text/plain"]
    first, second = text.split("\n\n")
    assert first.startswith("1. " + QUESTIONS["01-q-eval"].text)
    assert second.startswith("2. " + QUESTIONS["01-q-today"].text)
    assert "Box(" not in text


def test_stored_verdict_is_there_once(notebook):
    assert stored(notebook, 3)["text/plain"].startswith("Not attempted yet: ")


def test_choice_and_feedback_are_linked_in_the_page(notebook):
    """All that a page without a kernel needs is in the widget state, and nothing is chosen."""
    state = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    models = {name: model["state"] for name, model in state.items()}
    radios = [s for s in models.values() if s.get("_model_name") == "RadioButtonsModel"]
    links = [s for s in models.values() if s.get("_model_name") == "LinkModel"]
    assert len(radios) == len(links) == 3
    for link in links:
        radio, stack = (
            models[end[0].removeprefix("IPY_MODEL_")] for end in (link.source, link.target)
        )
        assert (link.source[1], link.target[1]) == ("index", "selected_index")
        assert radio["index"] is None and stack["selected_index"] is None
        (question,) = [
            q
            for q in QUESTIONS.values()
            if [label[3:] for label in radio["_options_labels"]] == [o.text for o in q.options]
        ]
        shown = [models[child.removeprefix("IPY_MODEL_")]["value"] for child in stack["children"]]
        words = ["Right" if option.right else "Wrong" for option in question.options]
        assert all(f"<strong>{w}:</strong>" in html for w, html in zip(words, shown, strict=True))
