#!/usr/bin/env python3
"""The training step in plain PyTorch (eager, channels last) that ours is compared with, on random images.

    python benchmarks/torch_step.py wide|small float32|bfloat16 BATCH

The program runs one round per line on standard input and prints the round's images per second. It needs torch (measured
with the CPU build of 2.13.0), which is not a dependency of Onsight: run.py uses the Python that ONSIGHT_TORCH names.
"""

import sys
import time

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

COUNT = 2048


def wide() -> nn.Module:
    """Return the network of the published 94 % recipe, with 64, 256 and 256 filters."""
    layers: list[nn.Module] = [nn.Conv2d(3, 24, 2), nn.SiLU()]
    layers[0].weight.requires_grad = False  # whitening
    for inputs, outputs in ((24, 64), (64, 256), (256, 256)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(outputs), nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU(),
        ]  # fmt: skip
    return nn.Sequential(*layers, nn.MaxPool2d(3), nn.Flatten(), nn.Linear(256, 10, bias=False))


def small() -> nn.Module:
    """Return the tutorials' CNN, with 32, 64 and 128 filters."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(inputs, outputs, 3), nn.ReLU(), nn.BatchNorm2d(outputs), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))


def main() -> None:
    name, precision, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
    torch.manual_seed(0)
    images = torch.randn(COUNT, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (COUNT,))
    model = {"wide": wide, "small": small}[name]().to(memory_format=torch.channels_last)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, 1e-3, momentum=0.9, nesterov=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        for i in range(0, COUNT - batch + 1, batch):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                logits = model(images[i : i + batch])
            loss = F.cross_entropy(logits.float(), labels[i : i + batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(COUNT // batch * batch / (time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    main()
