"""Why two identical backbones disagree."""

from helpers.course.questions.question import Question, right, wrong

QUESTIONS: dict[str, Question] = {
    "01-suspects": Question(
        "Two ResNet-50s loaded the same checkpoint and are given the same photo, yet their "
        "features differ. What do you suspect?",
        (
            wrong(
                "They ended up with different weights.",
                "Compared one by one, all tensors of the two are equal.",
            ),
            wrong(
                "IntermediateLayerGetter changes the features.",
                "It only collects what the stages return: with and without it, the stages' "
                "outputs are bit-identical.",
            ),
            right(
                "Their normalization layers compute different functions.",
                "`BatchNorm2d` ran with eps 1e-5, the `FrozenBatchNorm2d` of that day with eps 0. "
                "The checkpoint does not hold eps, so the same tensors make two functions.",
            ),
            wrong(
                "Only one of them normalizes the image.",
                "Both bodies begin with `conv1` and get the tensor as it is: a detector's "
                "`transform` stands outside of `backbone.body`.",
            ),
        ),
        "tests/test_questions.py::test_only_the_normalization_layers_differ",
    ),
    "01-size": Question(
        "The two ResNet-50s differ only in eps: 1e-5 in one, 0 in the other. How large is the "
        "difference this makes in layer4, next to float32 rounding?",
        (
            wrong(
                "Smaller: 1e-5 is next to nothing.",
                "1e-5 is added to the variance, not to the feature. Where a variance is small it "
                "is a large part of it.",
            ),
            wrong(
                "About the same: both are numerical noise.",
                "Rounding is noise. Another eps is another function: computed in float64, the "
                "difference stays.",
            ),
            right(
                "At least 80 times larger.",
                "So it is with these weights. It depends on the smallest variances: in the small "
                "trained ResNet of section 8, where none is small, it is some 20 to 60 times.",
            ),
            wrong(
                "It cannot be said: eps 0 gives NaN.",
                "NaN takes a variance of exactly 0, and no channel of the stand-in has one.",
            ),
        ),
        "tests/test_questions.py::test_the_eps_effect_is_at_least_80_times_the_rounding",
    ),
    "01-which-channel": Question(
        "A layer was trained with eps 1e-3 and runs with eps 1e-5. In which channels is its "
        "scale most wrong, as a factor?",
        (
            wrong(
                "Those with a large variance.",
                "There eps hardly counts: at variance 1 the scale is off by a factor of 1.0005.",
            ),
            wrong(
                "Those with a large weight.",
                "The weight multiplies the right scale and the wrong one alike, so it cancels "
                "from the factor.",
            ),
            wrong(
                "All the same: they share one eps.",
                "They share eps, but it is added to each channel's own variance: the factor is "
                "1.0005 at variance 1 and 3.16 at variance 1e-4.",
            ),
            right(
                "Those with a small variance.",
                "The factor is `sqrt((v + 1e-3) / (v + 1e-5))`. It grows as the variance v "
                "shrinks: 1.0005 at 1, 1.41 at 1e-3, 3.16 at 1e-4.",
            ),
        ),
        "tests/test_questions.py::test_small_variances_suffer_most",
    ),
    "01-accepted": Question(
        "The accepted answer builds both networks with `FrozenBatchNorm2d`, and its test passes. "
        "Why?",
        (
            wrong(
                "What remains is rounding, and below the tolerance.",
                "Nothing remains: the same layers on the same tensors round alike. The rounding "
                "between the two kinds of layer can fail this very test.",
            ),
            right(
                "Both sides now hold the same layer.",
                "The same function is compared with itself. The test passes whatever the layer's "
                "eps, so it does not show which of the two causes mattered.",
            ),
            wrong(
                "assert_almost_equal allows for the size of the features.",
                "It does not: it asks for an absolute difference below 1.5e-7 at any size.",
            ),
            wrong(
                "Its image is all ones.",
                "With a random image it passes just as well.",
            ),
        ),
        "tests/test_questions.py::test_the_same_frozen_layer_on_both_sides_agrees_with_any_eps",
    ),
    "01-lite0": Question(
        "EfficientNet-Lite0 was really trained, with eps 1e-3. What does it compute with eps 0?",
        (
            right(
                "NaN.",
                "130 of its channels have a variance of exactly 0: without eps their scale is "
                "infinite, and both infinity · 0 and infinity − infinity are NaN.",
            ),
            wrong(
                "The same up to rounding: training made eps superfluous.",
                "Training does not know which eps comes later. The variances were stored without "
                "it, and some of them are 0.",
            ),
            wrong(
                "Features that are a few percent too large.",
                "That is what variances near 0.01 would give. Some of its variances are exactly 0.",
            ),
            wrong(
                "Only zeros.",
                "Dividing by the root of a zero variance gives infinity, not zero.",
            ),
        ),
        "tests/test_questions.py::test_lite0_without_eps_is_nan",
    ),
    "01-q-eval": Question(
        "All normalization layers of a model are `FrozenBatchNorm2d`. What does `model.eval()` "
        "change in them?",
        (
            wrong(
                "Their running statistics stop moving.",
                "They never moved: its forward pass reads its buffers and writes none.",
            ),
            wrong(
                "They change from batch statistics to running statistics.",
                "That is `BatchNorm2d`. The frozen layer never looks at the batch's statistics.",
            ),
            right(
                "Nothing that it computes.",
                "The flag `training` turns, and its forward pass does not read it.",
            ),
        ),
        "tests/test_questions.py::test_eval_changes_nothing_in_a_frozen_layer",
    ),
    "01-q-statedict": Question(
        'You load a `state_dict` into another model and read "All keys matched". Do the two '
        "models have the same eps now?",
        (
            wrong(
                "Yes: eps is saved beside the running statistics.",
                "It is not: the `state_dict` holds parameters and buffers, and eps is neither.",
            ),
            wrong(
                "Yes, as long as strict=True.",
                "`strict` compares the names of the keys, and no key stands for eps.",
            ),
            right(
                "Not necessarily: each keeps the eps it was built with.",
                "eps is an attribute of the layer. The checkpoint cannot carry it, and loading "
                "cannot miss it.",
            ),
        ),
        "tests/test_questions.py::test_loading_a_state_dict_does_not_change_eps",
    ),
    "01-q-almost": Question(
        "`np.testing.assert_almost_equal(a, b)`, with its default `decimal=7`, compares features "
        "of size 1000. What may they differ by?",
        (
            right(
                "Less than 1.5e-7, as at any other size.",
                "The bound is absolute. Near 1000, float32 numbers lie 6e-5 apart, so only equal "
                "ones pass.",
            ),
            wrong(
                "About 1e-4: a relative 1e-7.",
                "No relative term is in it: the sizes of a and b do not enter.",
            ),
            wrong(
                "The seventh significant digit.",
                "`decimal` counts places after the decimal point; significant digits are what "
                "`assert_approx_equal` counts.",
            ),
        ),
        "tests/test_questions.py::test_assert_almost_equal_is_absolute",
    ),
    "01-q-today": Question(
        "In torchvision 0.29, does the body of `fasterrcnn_resnet50_fpn` with ImageNet backbone "
        "weights still differ from `resnet50` by eps?",
        (
            wrong(
                "Yes: its frozen layers still have eps 0.",
                "That was the default up to 0.8.2. Zero is kept only for its COCO weights.",
            ),
            right(
                "No: both have eps 1e-5.",
                "`FrozenBatchNorm2d` has it by default since 0.9.0. With this builder's COCO "
                "weights eps is still set to 0, as they were trained.",
            ),
            wrong(
                "No: its body has BatchNorm2d now.",
                "With pretrained weights its layers are still frozen. They are `BatchNorm2d` only "
                "if no weights are loaded at all, since 0.13.0.",
            ),
        ),
        "tests/test_questions.py::test_only_coco_weights_still_have_eps_0",
    ),
    "01-q-rounding": Question(
        "`BatchNorm2d` in eval mode and `FrozenBatchNorm2d` have equal buffers and equal eps. Are "
        "their outputs on the CPU bit-identical?",
        (
            wrong(
                "Always: it is the same formula.",
                "Where the processor fuses multiplication and addition, `BatchNorm2d` rounds "
                "fewer times, and last bits differ.",
            ),
            wrong(
                "Never: it is different code.",
                "Where the code in use has no fused multiply-add, both round at the same places "
                "and came out bit-identical.",
            ),
            right(
                "It depends on the processor: count on neither.",
                "So hold them to a bound that rounding keeps in your networks; in these it is "
                "`max|a-b| <= 1e-5 * max|a|`.",
            ),
        ),
        "tests/test_questions.py::test_bit_identity_depends_on_the_processor_path",
    ),
}
