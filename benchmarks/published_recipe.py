#!/usr/bin/env python3
"""The published recipe for 94 % on CIFAR-10, in plain PyTorch on a CPU: what the preset `fast` is compared with.

    python benchmarks/published_recipe.py DATA [--held-out 10000] [--seed 0] [--precision bfloat16]

DATA is a folder with CIFAR-10's .bin files. The recipe is Keller Jordan's of 2024 with Muon, github.com/
KellerJordan/cifar10-airbench: whitening, three blocks of 64, 256 and 256 filters, batches of 2,000, 8 epochs, six views
of each test image. As for the records, the seconds are those of whitening, training and views. `--held-out N` trains
without the last N training images and is scored on them, to choose by. The program needs torch (measured with the CPU
build of 2.13.0), which is not a dependency of Onsight. It prints the seconds, then the accuracy without and with views.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

EPOCHS, BATCH, WIDTHS = 8, 2000, (64, 256, 256)
BIAS_RATE, HEAD_RATE, KERNEL_RATE, DECAY = 0.053, 0.67, 0.24, 2e-6 * BATCH
WHITENING_EPOCHS = 3  # the bias behind the whitening is trained for so long
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def read(folder: Path, names: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images (n, 3, 32, 32) float32, normalised, and labels (n,)."""
    raw = np.concatenate([np.fromfile(folder / name, np.uint8).reshape(-1, 3073) for name in names])
    images = torch.from_numpy(raw[:, 1:].reshape(-1, 3, 32, 32)).float() / 255
    images = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return images.contiguous(memory_format=torch.channels_last), torch.from_numpy(raw[:, 0].astype(np.int64))


class Network(nn.Module):
    """The network: whitening, blocks that pool early, the largest value of each map, a small head."""

    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        self.whitening = nn.Conv2d(3, 24, 2)
        self.whitening.weight.requires_grad = False
        self.whitening.weight.copy_(whitening_filters(images))
        layers: list[nn.Module] = [nn.GELU()]
        for inputs, outputs in zip((24, *WIDTHS), WIDTHS, strict=False):
            layers += [convolution(inputs, outputs), nn.MaxPool2d(2), norm(outputs), nn.GELU()]
            layers += [convolution(outputs, outputs), norm(outputs), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.MaxPool2d(3), nn.Flatten())
        self.head = nn.Linear(WIDTHS[-1], 10, bias=False)
        self.head.weight.data /= self.head.weight.data.std()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.layers(self.whitening(images))
        return self.head(features) / WIDTHS[-1]


def whitening_filters(images: torch.Tensor) -> torch.Tensor:
    """Return filters (24, 3, 2, 2) whose outputs on patches of the images are uncorrelated, and their negatives."""
    patches = F.unfold(images[:5000], 2).transpose(1, 2).reshape(-1, 12)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / torch.sqrt(values + 5e-4)).T.reshape(-1, 3, 2, 2)
    return torch.cat([filters, -filters])


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a convolution whose first outputs copy its inputs."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.data[:inputs])
    return layer


def norm(channels: int) -> nn.BatchNorm2d:
    """Return a batch norm with a shift only."""
    layer = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    layer.weight.requires_grad = False
    return layer


class Muon(torch.optim.Optimizer):
    """Kernels of one norm, whose updates are equally large in all directions."""

    def __init__(self, kernels: list[nn.Parameter], lr: float, momentum: float = 0.6) -> None:
        super().__init__(kernels, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for kernel in group["params"]:
                moving = self.state[kernel].setdefault("moving", torch.zeros_like(kernel))
                moving.mul_(group["momentum"]).add_(kernel.grad)
                gradient = kernel.grad.add(moving, alpha=group["momentum"])
                kernel.mul_(len(kernel) ** 0.5 / kernel.norm())
                update = orthogonal(gradient.reshape(len(gradient), -1)).view(kernel.shape)
                kernel.add_(update.to(kernel.dtype), alpha=-group["lr"])


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Return about the nearest matrix with orthogonal rows or columns, by three Newton-Schulz steps in bfloat16."""
    x = (matrix / (matrix.norm() + 1e-7)).bfloat16()
    wide = x if len(x) <= x.shape[1] else x.T
    for _ in range(3):
        square = wide @ wide.T
        wide = 3.4445 * wide + (-4.7750 * square + 2.0315 * square @ square) @ wide
    return wide if len(x) <= x.shape[1] else wide.T


def cropped(padded: torch.Tensor) -> torch.Tensor:
    """Return each image cut out of its padded one at random, up to two pixels from the middle."""
    out = torch.empty(len(padded), 3, 32, 32).contiguous(memory_format=torch.channels_last)
    places = torch.randint(0, 5, (len(padded), 2))
    for y in range(5):
        for x in range(5):
            chosen = (places[:, 0] == y) & (places[:, 1] == x)
            out[chosen] = padded[chosen, :, y : y + 32, x : x + 32]
    return out


def views(answer: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the logits of six views: a half from the image, a half from two shifts of it; all mirrored, too."""
    padded = F.pad(images, (1,) * 4, "reflect")
    shifted = [padded[:, :, :32, :32], padded[:, :, 2:, 2:]]
    both = [(answer(each) + answer(each.flip(-1))) / 2 for each in (images, *shifted)]
    return both[0] / 2 + (both[1] + both[2]) / 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--held-out", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    images, labels = read(asked.data, [f"data_batch_{i}.bin" for i in range(1, 6)])
    if asked.held_out:
        kept = len(images) - asked.held_out
        (images, test_images), (labels, test_labels) = images.split(kept)[:2], labels.split(kept)[:2]
    else:
        test_images, test_labels = read(asked.data, ["test_batch.bin"])
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=asked.precision == "bfloat16")

    started = time.perf_counter()
    model = Network(images).to(memory_format=torch.channels_last)
    kernels = [each for each in model.parameters() if each.ndim == 4 and each.requires_grad]
    shifts = [each.bias for each in model.modules() if isinstance(each, nn.BatchNorm2d)]
    groups = [
        {"params": parameters, "lr": lr, "weight_decay": DECAY / lr}
        for parameters, lr in (
            ([model.whitening.bias], BIAS_RATE), (shifts, BIAS_RATE), ([model.head.weight], HEAD_RATE)
        )
    ]  # fmt: skip
    sgd = torch.optim.SGD(groups, momentum=0.85, nesterov=True)
    muon = Muon(kernels, KERNEL_RATE)
    rates = [(group, group["lr"]) for group in (*sgd.param_groups, *muon.param_groups)]
    mirrored = torch.rand(len(images)) < 0.5
    padded = F.pad(torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images), (2,) * 4, "reflect")
    per_epoch, step = len(images) // BATCH, 0
    for epoch in range(EPOCHS):
        seen = cropped(padded)
        if epoch % 2:
            seen = seen.flip(-1).contiguous(memory_format=torch.channels_last)
        order = torch.randperm(len(images))
        for i in range(per_epoch):
            chosen = order[i * BATCH : (i + 1) * BATCH]
            if step == WHITENING_EPOCHS * per_epoch:
                model.whitening.bias.requires_grad = False
                model.whitening.bias.grad = None
            with autocast:
                logits = model(seen[chosen])
            loss = F.cross_entropy(logits.float(), labels[chosen], label_smoothing=0.2, reduction="sum")
            for group, rate in rates:
                whole = WHITENING_EPOCHS if group is sgd.param_groups[0] else EPOCHS
                group["lr"] = rate * max(0.0, 1 - step / (whole * per_epoch))
            for optimizer in (sgd, muon):
                optimizer.zero_grad()
            loss.backward()
            for optimizer in (sgd, muon):
                optimizer.step()
            step += 1
        print(f"epoch {epoch + 1}: {time.perf_counter() - started:.0f} s, loss {loss.item() / BATCH:.3f}", flush=True)
    model.eval()
    with torch.no_grad(), autocast:
        with_views = torch.cat([views(model, part) for part in test_images.split(BATCH)])
        seconds = time.perf_counter() - started
        plain = torch.cat([model(part) for part in test_images.split(BATCH)])
    right = [(each.argmax(1) == test_labels).float().mean().item() for each in (plain, with_views)]
    assert math.isfinite(loss.item())
    print(f"{seconds:.0f} s, {EPOCHS} epochs")
    print(f"accuracy {right[0]:.4f}, with views {right[1]:.4f}")


if __name__ == "__main__":
    main()
