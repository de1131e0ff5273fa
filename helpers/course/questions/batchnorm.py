"""What BatchNorm computes."""

from helpers.course.questions.question import Question, right, wrong

_HERE = "tests/test_questions_batchnorm.py::"

QUESTIONS: dict[str, Question] = {
    "02-variance": Question(
        "A batch has n values in a channel. In train mode, which variance does `nn.BatchNorm2d` "
        "divide by, and which does it mix into running_var?",
        (
            wrong(
                "The biased one (1/n) in both places.",
                "Two are in play. They differ by the factor n/(n − 1): 2 when a channel has two "
                "values, 1.0001 when it has 10,000.",
            ),
            right(
                "It divides by the biased one (1/n) and stores the unbiased one (1/(n − 1)).",
                "So the output of one batch cannot tell which variance is stored, and a test that "
                "looks at outputs in train mode only misses it.",
            ),
            wrong(
                "It divides by the unbiased one and stores the biased one.",
                "The other way round: the normalized batch has a mean square of 1, up to eps.",
            ),
            wrong(
                "The unbiased one (1/(n − 1)) in both places.",
                "It stores that one. What it divides by makes the mean square of the normalized "
                "batch 1, up to eps: the biased one.",
            ),
        ),
        f"{_HERE}test_it_divides_by_the_biased_and_stores_the_unbiased_variance",
    ),
    "02-stops": Question(
        "Fine-tuning with batch size 2, you call `p.requires_grad_(False)` for every parameter of "
        "every BatchNorm layer, and then `model.train()`. What is frozen?",
        (
            wrong(
                "The layers, whole.",
                "Two things still move: the running statistics, and each image's output with the "
                "other image of its batch.",
            ),
            right(
                "Weight and bias only.",
                "`requires_grad` is about gradients. The running statistics are buffers, and the "
                "forward pass of train mode writes them.",
            ),
            wrong(
                "Weight, bias and the running statistics; the output still mixes images.",
                "The running statistics never had a gradient: nothing was switched off for them.",
            ),
        ),
        "notebooks/02_batchnorm.ipynb::what-stops-what",
    ),
    "02-batch-of-one": Question(
        "A BatchNorm layer in train mode sees 64 different images, one at a time, and averages "
        "their statistics (`momentum=None`). Another one sees all 64 at once. How do the two "
        "running_var compare?",
        (
            wrong(
                "Equal: the same images, and every one of them counted once.",
                "The variance of each image around its own mean says nothing of how far the means "
                "lie apart. With all at once, it counts.",
            ),
            wrong(
                "The first is noisier, and right on average.",
                "There is no noise in it: every image was seen, and in any order the average is "
                "the same. It is too low.",
            ),
            right(
                "The first is lower, and the same in any order of the images.",
                "It is the mean of the within-image variances. With B images at a time, (1 − 1/B) "
                "of the variance between the images comes on top, at B = 1 nothing.",
            ),
            wrong(
                "The first is higher: small samples scatter more.",
                "They scatter, but around their own mean, which is subtracted with them.",
            ),
        ),
        f"{_HERE}test_at_batch_size_one_the_variance_between_images_is_missing",
    ),
    "02-mxnet": Question(
        "In MXNet on the CPU, under `autograd.record()`, a BatchNorm layer runs forward on a "
        "batch. `backward()` is not called. What are its running statistics?",
        (
            wrong(
                "Updated once, as in PyTorch.",
                "PyTorch updates them in the forward pass. MXNet recorded the same before and "
                "after it.",
            ),
            right(
                "What they were.",
                "There the update is part of the backward pass: no backward, no update.",
            ),
            wrong(
                "Updated, with the biased variance.",
                "The biased variance is what it stores, once `backward()` has run.",
            ),
        ),
        "notebooks/02_batchnorm.ipynb::mxnet-moves",
    ),
    "02-q-nograd": Question(
        "To look at a few activations, you run a model in train mode under `torch.no_grad()`. What "
        "changes in it?",
        (
            wrong(
                "Nothing: without gradients nothing is learned.",
                "The running statistics are not learned by gradient. They move with every forward "
                "pass of train mode.",
            ),
            right(
                "Its running statistics move.",
                "`no_grad` is deaf to them, so the model's eval output is another one afterwards. "
                "Call `eval()` before you look.",
            ),
            wrong(
                "Only num_batches_tracked counts up.",
                "It counts, and running_mean and running_var move by momentum as well.",
            ),
        ),
        f"{_HERE}test_a_look_under_no_grad_changes_the_model",
    ),
    "02-q-momentum": Question(
        "A configuration written for MXNet says momentum 0.9, and somebody passes it to "
        "`nn.BatchNorm2d`. What happens?",
        (
            right(
                "running_mean and running_var follow almost only the latest batch.",
                "In PyTorch momentum weighs the new value: 0.9 keeps a tenth of the old. MXNet's "
                "0.9 is PyTorch's 0.1.",
            ),
            wrong(
                "Nothing: both libraries mean the same.",
                "They mean the same smoothing with opposite numbers, m and 1 − m.",
            ),
            wrong(
                "They move too slowly.",
                "Too fast: after one batch nine tenths of the old value are gone.",
            ),
        ),
        f"{_HERE}test_momentum_09_follows_the_latest_batch",
    ),
    "02-q-eval-train": Question(
        "You call `.eval()` on all BatchNorm layers once, before the training loop. The loop calls "
        "`model.train()` at the start of every epoch. What holds?",
        (
            wrong(
                "The layers stay in eval mode: it was set on each of them.",
                "`model.train()` sets the flag of every submodule again, theirs too.",
            ),
            right(
                "From the first epoch on they are in train mode again.",
                "`eval()` is a flag, and the next `train()` overwrites it. A frozen layer is deaf "
                "to it; a layer that should stay in eval mode needs it after each `train()`.",
            ),
            wrong(
                "They normalize by the batch, and their running statistics stand still.",
                "In train mode they do both: normalize by the batch's and update the running ones.",
            ),
        ),
        f"{_HERE}test_train_overwrites_eval",
    ),
    "02-q-smaller-momentum": Question(
        "Batch size 1 biases running_var. Does a smaller momentum, or longer training, mend it?",
        (
            wrong(
                "Yes: with a smaller momentum it averages over more images.",
                "More of the same within-image variances: they scatter less, around the same wrong "
                "value.",
            ),
            wrong(
                "Yes: in the long run it converges to the variance of the data.",
                "It converges to the within-image variance. More of the same does not bring the "
                "other part in.",
            ),
            right(
                "No: neither brings in what lies between the images.",
                "It is in none of the values that are averaged. Larger batches, or recalibrating "
                "with larger ones, bring it in.",
            ),
        ),
        f"{_HERE}test_no_momentum_mends_the_bias",
    ),
    "02-q-same-image": Question(
        "The same image goes twice through a network in train mode, in two different batches. "
        "Weights are not updated in between, and there is no dropout. Are its features the same?",
        (
            wrong(
                "Yes: same weights, same image.",
                "The other images enter through the batch's mean and variance.",
            ),
            right(
                "No: mean and variance are the whole batch's.",
                "In train mode an image's features are a function of its batch; in eval mode of "
                "the image alone.",
            ),
            wrong(
                "No, because running_mean has moved in between.",
                "It has moved, but train mode does not read it. The batch's own statistics are "
                "what changed.",
            ),
        ),
        f"{_HERE}test_in_train_mode_the_batch_decides",
    ),
}
