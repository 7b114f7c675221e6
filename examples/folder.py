"""A folder of photos, one sub-folder a class: check it, train on it, score it, ask about new photos.

    python examples/folder.py photos/ new.jpg more/*.jpg

398 photos of ants and bees (hymenoptera), started from nothing: 64.1 % of 153 (95 %: 56.2 to 71.2) in 74 s of processor
time, about 1 min on two cores. So few photos want more, or a pretrained network.
"""

import sys

import onsight


def main(folder: str, images: list[str]) -> None:
    """Print what was found in the photos, how good the model is, and its answers."""
    print(onsight.check(folder))  # broken, twice there, two labels: before anything is trained on it
    run = onsight.train(onsight.TrainSpec(data=folder, preset="quick"))
    print(onsight.evaluate(run))  # on photos that were held back
    for answer in onsight.predict(run, images):
        print(answer.source, "unreadable" if answer.error else f"{answer.label} {answer.probability:.1%}")
    print(f"The whole story: {run.report}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
