#!/usr/bin/env python3
"""Measure the rates of the input pipeline per core, and check a simulation of it against measured epochs.

    python benchmarks/pipeline.py DATA [--photos FOLDER] [--rounds 5]

DATA is a folder with the official archive of CIFAR-10. Rates are images per second of one core's CPU time, so they hold
on a busy machine, too. For the simulation, the device is a sleep of a given length per step: the host is as free as it
is beside an accelerator. A measured epoch runs the batches of `data.batches` on their thread. The simulated one draws
the time of each batch from times that were measured before, on that thread, without steps.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np

from onsight.data.batches import Examples, ahead, plan_epoch, training_batches
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import load_pixels
from onsight.imaging import decode

STEPS = 60
BATCH = 128


def simulate(making, steps):
    """Return the seconds of an epoch: making (n,) and steps (n,) are the seconds of each batch and of each step.

    One batch is made ahead: the next is begun when one is taken, and a step waits for its batch.
    """
    ready, done = making[0], 0.0
    for number, step in enumerate(steps):
        taken = max(ready, done)
        done = taken + step
        if number + 1 < len(making):
            ready = taken + making[number + 1]
    return done


def cpu_rate(work, count):
    """Return images per second of this thread's CPU time."""
    before = time.thread_time()
    work()
    return count / (time.thread_time() - before)


def measured_epoch(batches, step):
    began = time.perf_counter()
    for _ in ahead(batches):
        time.sleep(step)
    return time.perf_counter() - began


def batch_times(batches):
    moments = [time.perf_counter()]
    for _ in batches:
        moments.append(time.perf_counter())  # noqa: PERF401 - the loop is what is timed
    return np.diff(moments)


def check(examples, augmentation, factor, rng):
    """Return (measured, simulated) seconds of one epoch whose step takes `factor` times as long as its batch."""
    plan = plan_epoch(examples, augmentation, 0, 0)
    making = batch_times(ahead(training_batches(examples, plan, BATCH)))
    step = factor * float(np.median(making))
    slept = []
    for _ in range(20):  # a sleep takes a little longer than it was asked to
        began = time.perf_counter()
        time.sleep(step)
        slept.append(time.perf_counter() - began)
    simulated = simulate(rng.choice(making, STEPS), rng.choice(slept, STEPS))
    return measured_epoch(training_batches(examples, plan, BATCH), step), simulated


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    os.environ["ONSIGHT_DATA"] = str(asked.data)
    dataset = load_dataset("cifar10", None)
    images, count = dataset.images, STEPS * BATCH
    examples = Examples(images, np.arange(count), dataset.labels[:count])
    rng = np.random.default_rng(0)
    for augmentation in ("flip", "flip_shift", "flip_rotate_zoom"):
        plan = plan_epoch(examples, augmentation, 0, 0)
        rate = cpu_rate(lambda plan=plan: list(training_batches(examples, plan, BATCH)), count)
        print(f"32 px, {augmentation}: {rate:,.0f} images per second of a core")
    if asked.photos:
        photos = load_dataset(str(asked.photos), None)
        some = range(min(200, len(photos)))
        rate = cpu_rate(lambda: [decode.load(photos.read(index), 224) for index in some], len(some))
        print(
            f"photos decoded at 224 px: {rate:,.0f} images per second of a core; {224 * 224 * 3:,} bytes in the cache"
        )
        pixels = load_pixels(photos, 224).images
        few = Examples(pixels, np.arange(min(512, len(pixels))), photos.labels[:512])
        for augmentation in ("flip_nudge", "flip_rotate_zoom"):
            plan = plan_epoch(few, augmentation, 0, 0)
            n = len(few.labels) // 64 * 64
            rate = cpu_rate(lambda plan=plan: list(training_batches(few, plan, 64)), n)
            print(f"224 px, {augmentation}: {rate:,.0f} images per second of a core")
    for augmentation in ("flip_shift", "flip_rotate_zoom"):
        for factor in (0.5, 1.0, 2.0):
            ratios = []
            for _ in range(asked.rounds):
                measured, simulated = check(examples, augmentation, factor, rng)
                ratios.append(simulated / measured)
            shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"{augmentation}, step {factor:g} x batch: simulated / measured = {np.median(ratios):.2f} ({shown})")


if __name__ == "__main__":
    main()
