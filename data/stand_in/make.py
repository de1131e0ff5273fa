"""Remake the stand-in's running statistics from the four photos: python -m data.stand_in.make

Writes resnet50_statistics.pt, and prints the sha256 to write into helpers/networks/backbones.py.
"""

import os

import torch

from helpers.inputs.photos import load_all
from helpers.networks.backbones import STATISTICS, draw_stand_in
from helpers.networks.download import sha256_of
from helpers.norms import recalibrate


def main() -> None:
    model = recalibrate(draw_stand_in(), [load_all()])
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    part = STATISTICS.with_suffix(".part")
    torch.save(buffers, part)
    os.replace(part, STATISTICS)
    print(f'STATISTICS_SHA256 = "{sha256_of(STATISTICS)}"')


if __name__ == "__main__":
    main()
