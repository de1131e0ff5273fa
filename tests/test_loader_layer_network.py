"""The diagram of an image's way draws the ranges that it is given, and what its boxes do."""

import torch
import torch.nn.functional as F

from helpers.course.diagrams.loader_layer_network import BOXES, loader_layer_network
from helpers.inputs.pixels import MEAN, STD, Rescale


def test_it_draws_what_it_says_and_what_the_steps_compute():
    levels = 255 * torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, STD))
    loader = (levels / 255 - mean) / std
    again = F.batch_norm(levels, 255 * mean.flatten(), (255 * std.flatten()) ** 2, eps=0.0)
    assert (Rescale()(loader) - levels).abs().max() < 1e-4
    torch.testing.assert_close(again, loader)
    steps = {"loader": loader, "Rescale": Rescale()(loader), "BatchNorm": again}
    fig, words = loader_layer_network(levels, steps)
    drawn = [text.get_text() for text in fig.axes[0].texts if text.get_text()]
    ends = [f"{round(end.item(), 2):.3g}" for end in levels.aminmax()]
    assert drawn.count("{}\nto {}".format(*ends)) == 2
    assert "from file: {} to {};".format(*ends) in words and "from BatchNorm: −" in words
    assert all(any(does in text for text in drawn) for *_, does in BOXES.values())
    assert min(text.get_fontsize() for text in fig.axes[0].texts if text.get_text()) >= 11
