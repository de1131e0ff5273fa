"""What small batches break."""

from helpers.course.questions.question import Question, right, wrong

_HERE = "tests/test_questions_small_batches.py::"
_CELLS = "notebooks/04_small_batches.ipynb::"

QUESTIONS: dict[str, Question] = {
    "04-broken": Question(
        "Fine-tuned with one image per forward pass instead of 16, everything else equal, the "
        "detector finds far fewer objects. What did the small batches break most?",
        (
            wrong(
                "The weights: gradients through poor statistics led the training astray.",
                "A part of it: recalibrated, a quarter of the loss is still there. But the same "
                "weights, read in another way, have the rest back.",
            ),
            wrong(
                "The moving average: it is noisy, and a smaller momentum mends it.",
                "It is noisy. But averaged over 16 times as many images it is hardly better: what "
                "is wrong with it is no noise.",
            ),
            right(
                "The reading: with other statistics, the same weights find the objects.",
                "Normalized by each image's own statistics, as in training, the same weights find "
                "more than those of the large batches.",
            ),
            wrong(
                "Nothing: it is chance, and another seed would show it.",
                "Six seeds, and in each of them the same sign.",
            ),
        ),
        f"{_CELLS}readings",
    ),
    "04-momentum": Question(
        "With momentum 0.1 and one image at a time, running_var remembers about the last ten "
        "images. With momentum 0.0066 it remembers as many as batches of 16 do. How far does that "
        "mend it?",
        (
            wrong(
                "Wholly: the rest was noise.",
                "Averaging removes noise. What each of the averaged values lacks, the average "
                "lacks, too.",
            ),
            right(
                "It is steadier, and too low as before.",
                "A single image's variance holds nothing of how the images differ from each other. "
                "No average of such values does.",
            ),
            wrong(
                "Not at all, since momentum changes nothing here.",
                "It does change the noise: the same number, read after every image, jumps less.",
            ),
        ),
        f"{_HERE}test_a_smaller_momentum_takes_the_noise_and_leaves_the_bias",
    ),
    "04-fixed": Question(
        "In the new domain every image is five times darker, for good. Fine-tuned with the "
        "learning rate of section 1, which comes out worst?",
        (
            wrong(
                "BatchNorm in train mode, B = 1.",
                "Its statistics follow the images. All of them changed alike, so one image shows "
                "the change as well as 16 do.",
            ),
            wrong(
                "BatchNorm in train mode, B = 16.",
                "Its statistics follow the images within a few batches.",
            ),
            right(
                "FrozenBatchNorm2d.",
                "Its statistics are those of bright images. That is one half of the reason: "
                "section 5 separates the other.",
            ),
        ),
        f"{_CELLS}shifts",
    ),
    "04-sync": Question(
        "Four processes hold one image each. Inside the layer, sums and counts are added up with "
        "`dist.all_reduce`, and divided. What comes out wrong?",
        (
            wrong(
                "Nothing: sums and counts are what the statistics are made of.",
                "So the output is right. But autograd has not seen that the others' images were "
                "in the sum.",
            ),
            wrong(
                "The output, if the images differ in size.",
                "That is the mean of the means. Sums and counts weigh every pixel alike.",
            ),
            wrong(
                "The gradient of the layer's weight.",
                "This layer's needs the normalized values and the gradient that arrives, and both "
                "are local.",
            ),
            right(
                "The gradient of the layer's input.",
                "An image moves the statistics of all four. The backward pass has to add the four "
                "gradients up as the forward pass did with the sums.",
            ),
        ),
        f"{_CELLS}sync",
    ),
    "04-q-accumulate": Question(
        "The memory holds one image. You add up the gradients of 16 forward passes before each "
        "update. By what does BatchNorm normalize?",
        (
            wrong(
                "By 16 images: that is the batch of the update.",
                "The layer normalizes in the forward pass, and knows of no update.",
            ),
            right(
                "By one image.",
                "Accumulation makes the gradient of a large batch only where no layer looks at the "
                "batch. BatchNorm does, and its batch is one forward pass.",
            ),
            wrong(
                "By the running statistics, once 16 images have passed.",
                "In train mode it never normalizes by them.",
            ),
        ),
        f"{_HERE}test_accumulation_does_not_enlarge_the_batch_of_a_layer",
    ),
    "04-q-recalibrate": Question(
        "You recalibrate: weights fixed, running statistics averaged anew over 256 images. Does "
        "the size of those batches matter?",
        (
            wrong(
                "No: the weights are fixed, and all images are seen.",
                "The average of the batches' variances lacks what differs between the batches.",
            ),
            right(
                "Yes: in batches of one, the running variance comes out too low again.",
                "It is the same law as in training, within plus (1 − 1/B) of between. Recalibrate "
                "in large batches.",
            ),
            wrong(
                "Yes: in large batches it comes out too high.",
                "At B images (1 − 1/B) of the between-image variance is in it: from below, never "
                "above.",
            ),
        ),
        f"{_HERE}test_recalibration_in_batches_of_one_is_biased_low",
    ),
    "04-q-eval": Question(
        "FrozenBatchNorm2d, or BatchNorm2d kept in eval mode while the rest trains: what differs?",
        (
            wrong(
                "The statistics: eval mode still updates them.",
                "Only train mode writes them.",
            ),
            right(
                "Weight and bias: they train in the second.",
                "And so an optimizer must hold them; the statistics are fixed in both, and the "
                "batch size enters neither.",
            ),
            wrong(
                "Nothing.",
                "The frozen layer has no parameters at all.",
            ),
        ),
        f"{_HERE}test_eval_mode_trains_weight_and_bias_and_frozen_has_none",
    ),
    "04-q-group": Question(
        "Two detectors were trained alike, with batch and with group normalization. By mistake "
        "both get images in 0–255, 255 times too large. Who still finds the objects?",
        (
            wrong(
                "Neither: the network never saw such numbers.",
                "Behind the first normalization layer of one, they are the numbers it knows.",
            ),
            wrong(
                "The one with batch normalization, whose statistics are stored.",
                "Just because they are stored: it divides by the spread of images in 0–1.",
            ),
            right(
                "The one with group normalization.",
                "It divides each image by the image's own spread. Its recall falls by a few "
                "hundredths only.",
            ),
        ),
        f"{_HERE}test_a_scale_cancels_in_group_normalization",
    ),
    "04-q-scratch": Question(
        "A detector is trained from scratch, without pretrained weights, and someone passes "
        "`norm_layer=FrozenBatchNorm2d`. What does the layer do?",
        (
            wrong(
                "It normalizes by the first batch, and keeps that.",
                "It never looks at a batch.",
            ),
            right(
                "Nothing: mean 0, variance 1, weight 1, bias 0.",
                "The identity, up to eps. The network has no normalization at all, and its "
                "activations grow from block to block.",
            ),
            wrong(
                "It fails, since no statistics were loaded.",
                "It has statistics from the start, and they look valid.",
            ),
        ),
        f"{_CELLS}scratch",
    ),
}
