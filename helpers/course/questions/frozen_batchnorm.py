"""What freezing is."""

from helpers.course.questions.question import Question, right, wrong

PROOFS = "tests/test_questions_frozen_batchnorm.py"

QUESTIONS: dict[str, Question] = {
    "03-moves": Question(
        "A network with FrozenBatchNorm2d runs a training step: train(), forward, backward, SGD "
        "with weight decay. What moves in these layers?",
        (
            wrong(
                "weight and bias: weight decay shrinks them.",
                "Weight decay works on an optimizer's parameters. These two are buffers here, and "
                "`parameters()` does not hand them out.",
            ),
            wrong(
                "running_mean and running_var: train mode updates them.",
                "That is `BatchNorm2d`. The frozen layer's forward pass reads its buffers, and "
                "writes none.",
            ),
            right(
                "Nothing.",
                "Four buffers, no parameter, and a forward pass that does not ask for the mode: "
                "neither the optimizer nor `train()` reaches them.",
            ),
            wrong(
                "All four: each by its own means.",
                "So it is in a `BatchNorm2d`. Here neither the optimizer nor `train()` has a hold.",
            ),
        ),
        f"{PROOFS}::test_a_training_step_moves_nothing_in_a_frozen_layer",
    ),
    "03-reload": Question(
        "A detector built with COCO_V1 weights has 53 frozen layers with eps 0. Its state_dict is "
        "saved, and loaded into the same builder without any weights. What are the 53 layers now?",
        (
            wrong(
                "What they were: all keys matched.",
                "The keys stand for tensors. Neither the class of a layer nor its eps has one.",
            ),
            wrong(
                "Frozen layers with eps 1e-5.",
                "So it is if the backbone's weights stay at their default. Without any weights, "
                "this builder (0.13.0 and later) makes no frozen layers.",
            ),
            wrong(
                "BatchNorm2d with eps 0.",
                "The class is right. But nothing carries the 0 over: `BatchNorm2d` has its own "
                "default.",
            ),
            right(
                "BatchNorm2d with eps 1e-5.",
                "Another eps, and in train mode statistics that move. Loading reports that all "
                "keys matched.",
            ),
        ),
        f"{PROOFS}::test_a_reloaded_detector_is_another_function",
    ),
    "03-channels": Question(
        "EfficientNet-Lite0 was really trained, with eps 1e-3, and runs with 1e-5. Which of its "
        "21,008 channels, wrong alone, put its last stage nearly as far off as all of them?",
        (
            wrong(
                "The 130 of variance 0.",
                "Their scale is off most, 10 times too large. On the four photos it makes no "
                "difference there.",
            ),
            right(
                "The 509 of a variance above 0 and below 1e-3.",
                "Wrong in these alone, it is off by 0.21 of its largest feature; wrong in "
                "all, by 0.22.",
            ),
            wrong(
                "The 1,393 of a variance from 1e-3 to 1e-2.",
                "Wrong in these alone, it is off by 0.16 of its largest feature; wrong in all, by "
                "0.22.",
            ),
            wrong(
                "The 18,976 of a variance of 1e-2 or more.",
                "Their scale is off by 5 % at most, and most by far less: together 0.024 of the "
                "largest feature.",
            ),
        ),
        f"{PROOFS}::test_few_channels_put_the_last_stage_nearly_as_far_off_as_all",
    ),
    "03-memory": Question(
        "In train mode ResNet-50's body keeps 107 MiB for the backward pass of one image of 256 "
        "px. How much does it keep after eval()?",
        (
            wrong(
                "Nothing: eval() turns the backward pass off.",
                "`torch.no_grad()` does. `eval()` sets a flag that some layers read, and autograd "
                "is not one of them.",
            ),
            wrong(
                "About half: without batch statistics the inputs are not needed.",
                "They are not needed for the gradient of the input. `BatchNorm2d` keeps them all "
                "the same, for that of its weight.",
            ),
            right(
                "107 MiB: the layers keep their inputs all the same.",
                "They only use other statistics. `FrozenBatchNorm2d` is what saves memory.",
            ),
        ),
        f"{PROOFS}::test_eval_saves_no_memory_and_freezing_does",
    ),
    "03-autocast": Question(
        "A normalization layer, a ReLU and a convolution in float32: with BatchNorm2d they keep 8 "
        "bytes per value for backward, with FrozenBatchNorm2d 4. And under bfloat16 autocast?",
        (
            wrong(
                "4 and 2: everything is halved.",
                "So it would be if everything were bfloat16. The frozen layer's buffers are "
                "float32, and so is its product.",
            ),
            wrong(
                "4 and 4: the ReLU's output is float32, and nothing else is kept.",
                "The ReLU keeps float32, 4 bytes. But the convolution then keeps its own copy, in "
                "bfloat16.",
            ),
            right(
                "4 and 6: freezing costs memory.",
                "The frozen layer returns float32 (4 bytes, kept by the ReLU), which the "
                "convolution casts to bfloat16 (2 more).",
            ),
            wrong(
                "8 and 4: autocast changes nothing in normalization layers.",
                "It does not cast their input. But what comes from a convolution is bfloat16 "
                "already, and `BatchNorm2d` returns what it gets.",
            ),
        ),
        f"{PROOFS}::test_under_autocast_the_frozen_layer_keeps_more",
    ),
    "03-q-affine": Question(
        "You turn requires_grad off for weight and bias of every BatchNorm2d, and train. What "
        "still changes in these layers?",
        (
            wrong(
                "Nothing: they are frozen.",
                "Their parameters are. Statistics are no parameters, and follow `train()`.",
            ),
            right(
                "running_mean and running_var.",
                "`requires_grad` is for the optimizer, `train()` for the statistics: freezing "
                "takes both.",
            ),
            wrong(
                "weight and bias, through weight decay.",
                "Without a gradient the optimizer passes over them, weight decay and all.",
            ),
        ),
        f"{PROOFS}::test_requires_grad_does_not_stop_the_statistics",
    ),
    "03-q-zero": Question(
        "fasterrcnn_resnet50_fpn with both weights None and trainable_backbone_layers=0: how much "
        "of the backbone's body trains?",
        (
            right(
                "All of it.",
                "Without pretrained weights the argument is ignored, with a warning: random "
                "layers are not worth freezing.",
            ),
            wrong(
                "Nothing: 0 layers are trainable.",
                "So it is with pretrained weights. Without any, the builder sets the number to 5.",
            ),
            wrong(
                "Only the normalization layers.",
                "They train, and the convolutions do, too: the argument is ignored.",
            ),
        ),
        f"{PROOFS}::test_trainable_layers_are_ignored_without_weights",
    ),
    "03-q-sync": Question(
        "What does SyncBatchNorm.convert_sync_batchnorm do to FrozenBatchNorm2d?",
        (
            wrong(
                "It makes a SyncBatchNorm of it.",
                "It converts what is a `_BatchNorm`, and the frozen layer is not: it is a "
                "`Module` with four buffers.",
            ),
            wrong(
                "It raises a TypeError.",
                "It passes over what it does not know, without a word.",
            ),
            right(
                "Nothing.",
                "It is no subclass of `_BatchNorm`. And it has no batch statistics to share.",
            ),
        ),
        f"{PROOFS}::test_sync_conversion_passes_over_frozen_layers",
    ),
    "03-q-mend": Question(
        "A checkpoint was mended by running_var += eps_trained − eps_layer. Where does the mend "
        "not hold?",
        (
            wrong(
                "After saving it and loading it into the same layers.",
                "The mend is in the tensors, and those are saved.",
            ),
            wrong(
                "In a layer that is frozen.",
                "There the statistics stand still, and the sum under the root stays right.",
            ),
            right(
                "In a BatchNorm2d that goes on training in train mode.",
                "There each batch is normalized by its own variance and the layer's eps, and "
                "`running_var` moves away from what was mended.",
            ),
        ),
        f"{PROOFS}::test_the_mend_is_lost_in_train_mode",
    ),
    "03-q-product": Question(
        "Why does FrozenBatchNorm2d keep less for the backward pass than BatchNorm2d in eval mode "
        "with frozen weight and bias?",
        (
            wrong(
                "Buffers need no gradient, and parameters do.",
                "The frozen parameters need none either, and `BatchNorm2d` keeps its input all "
                "the same.",
            ),
            right(
                "A product with a constant keeps the constant; batch_norm keeps its input.",
                "The gradient of `x * scale` needs only `scale`, if that does not train. "
                "`batch_norm` is one operation, and keeps its input whatever trains.",
            ),
            wrong(
                "It works in place.",
                "`x * scale + shift` makes new tensors. They are let go after the forward pass.",
            ),
        ),
        f"{PROOFS}::test_what_is_kept_depends_on_how_the_layer_is_written",
    ),
}
