"""What a network is fed."""

from helpers.course.questions.question import Question, right, wrong

_HERE = "tests/test_questions_input_scaling.py::"
_PAGE = "notebooks/05_input_scaling.ipynb::"

QUESTIONS: dict[str, Question] = {
    "05-composition": Question(
        "The loader divides pixels by 255, subtracts ImageNet's mean and divides by its std. The "
        "network's first layer multiplies by 255 · std and adds 255 · mean. What comes out?",
        (
            wrong(
                "The normalized image: the layer's factor cancels the division by 255.",
                "Its mean and std undo the normalization, too.",
            ),
            wrong(
                "The image in 0–1: a factor 255 is missing.",
                "So the thread suspected. The factor is in the constants: 0.229 · 255 = 58.395.",
            ),
            right(
                "The pixels, 0 to 255, up to rounding.",
                "The layer is the exact inverse of what the loader did: all in vain, unless the "
                "next layer wants pixels.",
            ),
            wrong(
                "Pixels shifted by the mean color.",
                "The mean is added back. For two days in June 2018 it was not.",
            ),
        ),
        f"{_PAGE}composition",
    ),
    "05-leave-out": Question(
        "The next layer is a BatchNorm, which normalizes the pixels 0–255 by statistics it has "
        "stored. Both steps before it are left out, and the loader hands over the image in 0–1. "
        "What has to be done?",
        (
            wrong(
                "Nothing: a normalization layer takes away any scale.",
                "By the batch's statistics it would. These are stored, and belong to pixels.",
            ),
            right(
                "Multiply by 255, or divide its mean by 255 and its variance by 255².",
                "Stored statistics belong to the scale on which they were collected, and so does "
                "eps.",
            ),
            wrong(
                "Divide its mean and its variance by 255.",
                "A variance goes with the square of the scale.",
            ),
            wrong(
                "Retrain: the weights behind it belong to pixels.",
                "They belong to the layer's output, and that can be had from either scale.",
            ),
        ),
        f"{_HERE}test_stored_statistics_belong_to_a_scale",
    ),
    "05-distinct": Question(
        "Of eight ways to feed a network, which store the same function of the pixels as "
        "torchvision, up to rounding?",
        (
            wrong(
                "None: every framework has constants of its own.",
                "They look different, and some are the same: 123.675 is 255 · 0.485.",
            ),
            wrong(
                "Keras in its tf mode: both are RGB and start from 0–1.",
                "It goes from −1 to 1, whatever the channel.",
            ),
            right(
                "Keras in its torch mode, mmdetection and GluonCV.",
                "mmdetection's constants are 255 times torchvision's, and so are its pixels.",
            ),
            wrong(
                "Detectron2: it has the same mean.",
                "It has, times 255 and in BGR; but its std is 1, as conv1 absorbed the rest.",
            ),
        ),
        f"{_HERE}test_five_functions",
    ),
    "05-silent": Question(
        "A detector that expects 0–1 and normalizes by itself is fed the same scenes in −1…1. "
        "What happens?",
        (
            wrong(
                "It raises an error.",
                "Floats in any range are accepted; only integers are refused.",
            ),
            wrong(
                "It finds fewer than 1 object in 10.",
                "That is what pixels 0–255 do to it. −1…1 is twice the contrast, and darker.",
            ),
            wrong(
                "It finds about half of the objects.",
                "More, though fewer than with the right input, where it finds nine in ten.",
            ),
            right(
                "It finds more than 7 objects in 10.",
                "That is what makes it dangerous: no error, plausible boxes, and more than twice "
                "as many objects missed as with the right input.",
            ),
        ),
        f"{_PAGE}costs",
    ),
    "05-border": Question(
        "A convolution pads with zeros, after the image was normalized. Normalization is folded "
        "into its weight and bias, zero padding kept. Where does the output change?",
        (
            wrong("Nowhere: folding is exact.", "In the interior it is."),
            right(
                "At the border only.",
                "Black pixels stand there now: zero after normalizing is the mean color, zero "
                "before it is black. Pad with the mean color, and the border is right, too.",
            ),
            wrong(
                "Everywhere, by the bias.",
                "The bias is what makes the interior exact: it is the response to the mean color.",
            ),
        ),
        f"{_PAGE}fold",
    ),
    "05-q-batch-statistics": Question(
        "A network begins with a BatchNorm in train mode. Its input is multiplied by 255. What "
        "changes in the output of this layer?",
        (
            right(
                "Nearly nothing: only eps weighs less.",
                "The batch's mean and standard deviation grow by 255, too. eps is added to a "
                "variance that is 65,025 times larger.",
            ),
            wrong(
                "It grows by 255.", "It is divided by the batch's standard deviation, which grows."
            ),
            wrong("It saturates.", "Nothing in it saturates: it is a map of mean 0, variance 1."),
        ),
        f"{_HERE}test_batch_statistics_take_the_scale_away",
    ),
    "05-q-uint8": Question(
        "An image of dtype uint8, 0 to 255, is passed to a torchvision detector. And then the same "
        "values as float32?",
        (
            wrong(
                "Both are divided by 255.",
                "Neither is: the detector expects 0–1 and checks no range.",
            ),
            wrong("Both raise an error.", "Only the integers do. The floats are taken for 0–1."),
            right(
                "The first raises an error, the second is taken as it is.",
                "TypeError since torchvision 0.9.0 for integers; floats of any range pass.",
            ),
        ),
        f"{_HERE}test_integers_are_refused_and_floats_pass",
    ),
    "05-q-bgr": Question(
        "Can a function that sees one image tell for sure that its channels are BGR?",
        (
            wrong(
                "Yes: the mean of blue is smaller than that of red.",
                "On average over ImageNet. A photo of the sky turns it round.",
            ),
            right(
                "No: a blue picture in RGB has the numbers of a red one in BGR.",
                "Range and means can make it likely. `diagnose` gives both, with scores.",
            ),
            wrong("Yes, from the range.", "The range is that of RGB: only the order differs."),
        ),
        f"{_HERE}test_bgr_cannot_be_told_for_sure",
    ),
    "05-q-padding": Question(
        "torchvision pads the images of a batch to one size after it has normalized them. With "
        "what color?",
        (
            wrong("Black.", "Zero is black only before the mean is subtracted."),
            right(
                "The mean color.",
                "It pads with 0, and 0 is what the mean color has become.",
            ),
            wrong(
                "The color of the nearest pixel.",
                "Nothing is repeated: a tensor of zeros is filled.",
            ),
        ),
        f"{_HERE}test_torchvision_pads_with_the_mean_color",
    ),
    "05-q-fold-order": Question(
        "Weights were trained on BGR. Instead of turning the channels of every image, one can",
        (
            right(
                "turn the input channels of the first convolution, once.",
                "The sum over input channels is the same in any order.",
            ),
            wrong(
                "turn its output channels.",
                "Those are features, not colors: the layers behind would get the wrong ones.",
            ),
            wrong(
                "nothing: the order matters to all layers.",
                "Only the first sees colors.",
            ),
        ),
        f"{_HERE}test_turning_the_first_convolution_is_turning_the_image",
    ),
}
