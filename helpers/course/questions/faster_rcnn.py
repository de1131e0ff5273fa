"""Faster R-CNN and its backbone."""

from helpers.course.questions.question import Question, right, wrong

_HERE = "tests/test_questions_faster_rcnn.py::"
_PAGE = "notebooks/06_faster_rcnn_backbone.ipynb::"

QUESTIONS: dict[str, Question] = {
    "06-level": Question(
        "In an image of 800 × 800 px (so not resized), with torchvision's defaults, a proposal "
        "measures 100 × 100 px. From which level is it pooled?",
        (
            right("P2.", "4 + log₂(100 / 224) is 2.8, and that is rounded down."),
            wrong("P3.", "2.8 is rounded down, not to the nearest."),
            wrong("P4.", "P4 takes boxes from 224 px on."),
            wrong(
                "From the level that proposed it.",
                "That is forgotten: only the area of the box counts.",
            ),
        ),
        f"{_HERE}test_level_of_a_proposal",
    ),
    "06-frozen": Question(
        "A ResNet-50 with BatchNorm2d is the body, `trainable_layers=0`, and the detector is in "
        "train mode. What changes in the body during an epoch?",
        (
            wrong("Nothing: all of it is frozen.", "Parameters are. Statistics are none."),
            wrong(
                "The running statistics of bn1 alone.",
                "Every BatchNorm in train mode moves its statistics, frozen parameters or not.",
            ),
            right(
                "The running statistics of all 53 layers.",
                "requires_grad holds for parameters; statistics move in the forward pass.",
            ),
            wrong("The affine parameters of all 53 layers.", "Those are parameters, and frozen."),
        ),
        f"{_PAGE}trainable",
    ),
    "06-boxes": Question(
        "On 40 scenes the detector finds 127 boxes. Which difference in its body's normalization "
        "displaces the most of them?",
        (
            wrong("Rounding: float32 in place of float64.", "It displaces none."),
            wrong("eps 0 in place of 1e-5.", "None: its variances are far above 1e-5."),
            wrong("eps 1e-3 in place of 1e-5.", "One, by a little."),
            right(
                "The statistics of each image in place of the running ones.",
                "About one box of five goes, or moves far. The others stay.",
            ),
        ),
        f"{_PAGE}kinds",
    ),
    "06-field": Question(
        "Which of these can see the widest piece of the image, in theory, in ResNet-50 with an "
        "FPN?",
        (
            wrong("C2: it is the largest map.", "It is the narrowest: 35 px. Its cells are small."),
            wrong("C5: it is the deepest of the three.", "427 px, and P2 gets C5 from above."),
            right("P2.", "It adds C5, enlarged, to C2, and a 3×3 convolution: up to 459 px."),
        ),
        f"{_HERE}test_receptive_fields",
    ),
    "06-q-key": Question(
        'A backbone\'s `return_layers` are {"layer1": "2", …, "layer4": "5"}; the rest is '
        "torchvision's default. What happens?",
        (
            wrong("An error: the pooler misses the levels 0 and 1.", "It takes what it finds."),
            right(
                "It runs, and proposals are pooled from P2 and P3 only.",
                'The pooler takes the maps called "0" to "3", and here "2" and "3" are P2 and P3.',
            ),
            wrong("Nothing changes: names are only names.", "The pooler looks maps up by name."),
        ),
        f"{_HERE}test_other_keys_leave_levels_out",
    ),
    "06-q-p6": Question(
        "What is P6 for?",
        (
            right("For large anchors: it proposes.", "It is P5 at every second cell; no weights."),
            wrong("For large proposals: they are pooled from it.", "None is ever pooled from it."),
            wrong("For training only.", "The RPN looks at it in both modes."),
        ),
        f"{_HERE}test_p6_proposes_and_is_not_pooled_from",
    ),
    "06-q-in-place": Question(
        "`IntermediateLayerGetter` is asked for bn1 and layer1 of a ResNet. What is returned as "
        "bn1?",
        (
            wrong("The output of bn1.", "The ReLU behind it overwrites it."),
            right("The output of bn1, rectified.", "The ReLU works in place, on the same memory."),
            wrong("An error.", "bn1 is a child; nothing complains."),
        ),
        f"{_PAGE}getter",
    ),
    "06-q-nms": Question(
        "Two proposals have an IoU of 0.8. One stands on an anchor of P2, the other of P3. What "
        "does the RPN's NMS, whose threshold is 0.7, do?",
        (
            wrong("It keeps the one with the better score.", "Within a level it would."),
            right(
                "Neither suppresses the other.",
                "It works per level. The box head's works per class.",
            ),
            wrong("It keeps the one of P2.", "No level comes first."),
        ),
        f"{_HERE}test_nms_of_the_rpn_is_per_level",
    ),
    "06-q-anchors": Question(
        "Weights trained for 128 px scenes run with torchvision's anchors of 32 to 512 px. What "
        "will you see first?",
        (
            wrong("An error: P6's anchors exceed the image.", "Boxes are clipped to the image."),
            wrong("NaN in the loss.", "All numbers are finite."),
            right(
                "Few small proposals.",
                "Proposals are about as large as the anchors that they start from.",
            ),
        ),
        f"{_PAGE}wrong",
    ),
}
