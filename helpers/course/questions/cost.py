"""What normalization and NMS cost."""

from helpers.course.questions.question import Question, right, wrong

_HERE = "tests/test_questions_cost.py::"
_PAGE = "notebooks/07_where_the_time_goes.ipynb::"

QUESTIONS: dict[str, Question] = {
    "07-three": Question(
        "In PyTorch, on an H200, one of these costs a detector nothing any more. Which makes its "
        "forward pass 3 times as fast?",
        (
            wrong("NMS.", "1.2 times, with 4,598 candidates, as torchvision does it."),
            wrong("All normalization layers.", "They take a tenth of the time."),
            wrong("Stage 4 on every proposal, where it runs so.", "1.9 times."),
            right("None of them.", "For that, one would have to take two thirds of the time."),
        ),
        f"{_PAGE}bounds",
    ),
    "07-launches": Question(
        "`FrozenBatchNorm2d` moves twice the bytes of `BatchNorm2d` in eval mode. How much longer "
        "does it take on an H200, for 8 maps of layer1 at 224 px?",
        (
            wrong("As long: a GPU has bandwidth to spare.", "It does take longer."),
            wrong("Twice as long: bytes are time.", "They are, once a map is large enough."),
            right(
                "Three times as long.",
                "The map is too small for its bytes to count; seven calls in place of one do.",
            ),
            wrong("Seven times as long: it makes seven calls.", "Each costs less than BN eval."),
        ),
        f"{_PAGE}layer",
    ),
    "07-classes": Question(
        "300 candidate boxes, spread over 1 class or over 80. How long does `batched_nms` take for "
        "80, on the GPU?",
        (
            right("About as long as for one.", "All classes are one call, over as many boxes."),
            wrong("80 times as long: NMS runs once per class.", "It runs once, on moved boxes."),
            wrong("A fraction: each class has few boxes.", "It does not look class by class."),
        ),
        f"{_PAGE}nms",
    ),
    "07-memory": Question(
        "Under autocast, a ResNet-50 with which layers keeps the most for backward?",
        (
            wrong("BatchNorm2d: it keeps its whole input.", "In half precision."),
            right(
                "FrozenBatchNorm2d.",
                "Its float32 scale makes its output float32, which is kept beside its half.",
            ),
            wrong("All the same: autocast decides.", "The layer decides what it hands on."),
        ),
        f"{_PAGE}kept",
    ),
    "07-q-eval": Question(
        "A body is put into eval mode, with frozen affine parameters, to save memory in training. "
        "What does it save, in float32?",
        (
            right(
                "Nothing that matters: BatchNorm2d keeps its input all the same.",
                "FrozenBatchNorm2d keeps a scale for each channel.",
            ),
            wrong("Half of what is kept.", "Only another layer does that."),
            wrong("All of it: nothing trains.", "The convolutions do."),
        ),
        f"{_HERE}test_eval_mode_saves_no_memory",
    ),
    "07-q-share": Question(
        "NMS takes 6 % of a forward pass, and now runs twice as fast. How much time does the pass "
        "save?",
        (
            wrong("Half of it.", "Half of 6 % of it."),
            wrong("6 %.", "Only if NMS takes no time at all."),
            right("3 %.", "And is 1 / (1 − 0.03), so 1.03 times as fast."),
        ),
        f"{_HERE}test_half_of_six_percent",
    ),
    "07-q-profile": Question(
        "On a GPU, a timer around each part says that the RPN takes half of a detector's forward "
        "pass. What do you do first?",
        (
            wrong("Optimize the RPN.", "It may only be the first that waits."),
            right(
                "Wait for the GPU before and after each part, and measure again.",
                "Then the backbone, which had only queued its work, pays for it.",
            ),
            wrong("Take fewer classes.", "NMS is a small share of that."),
        ),
        f"{_PAGE}exercise-profile-code",
    ),
    "07-q-fold": Question(
        "On the two GPUs, folding every BatchNorm into its convolution makes the body's float32 "
        "forward pass at batch 8 …",
        (
            wrong("… faster by what normalization took.", "The convolution has a bias to add now."),
            right("… about as fast as before.", "Adding the bias is a pass over the map, too."),
            wrong("… inexact: the eps is lost.", "It goes into the weight, as it was."),
        ),
        f"{_PAGE}folded",
    ),
    "07-q-onnx": Question(
        "`FrozenBatchNorm2d` with the wrong eps was exported to ONNX. Can the file be mended?",
        (
            wrong("Yes: change the attribute epsilon.", "Its Mul and Add have none."),
            right(
                "Not from the file alone, as it is exported by default.",
                "The running variance is not in it, only the factor made of both.",
            ),
            wrong("Yes: the factor holds it.", "As a sum with a variance that is not known."),
        ),
        f"{_PAGE}onnx",
    ),
}
