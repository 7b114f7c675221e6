"""Check a folder of photos (one sub-folder per class), train on it, score the model and classify new photos.

    python examples/folder.py photos/ new.jpg more/*.jpg

Expect on 398 photos of ants and bees (hymenoptera), from random weights: 64.1 % of 153 test images correct
(95 % interval: 56.2 to 71.2) in 74 s of CPU time, about 1 min on two cores. For a better result, use more photos or a
pretrained network.
"""

import sys

import onsight


def main(folder: str, images: list[str]) -> None:
    """Print the problems found in the photos, the scores of the model, and its answers for `images`."""
    print(onsight.check(folder))  # unreadable files, duplicates, two labels: look before you train
    run = onsight.train(onsight.TrainSpec(data=folder, preset="quick"))
    print(onsight.evaluate(run))  # on photos that were held out
    for answer in onsight.predict(run, images):
        print(answer.source, "unreadable" if answer.error else f"{answer.label} {answer.probability:.1%}")
    print(f"Full report: {run.report}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
