#!/usr/bin/env python3
"""Which short result ranks settings as their whole trainings do: an early epoch, or a whole short training?

    python benchmarks/tune_rungs.py OUT [--data cifar10] [--model cnn_compact] [--settings 8] [--seeds 2] [--epochs 9]
        [--shots N]

Draws settings from the default search of `tune`, and trains each on all epochs and, with a schedule of its own, on a
third of them. Kendall's tau with the final validation accuracy is computed for the epoch at a third of the long
training and for the short training. Results are JSON lines on standard output; no test image is used.
"""

import argparse
import json
import os
from pathlib import Path

import onsight
from onsight import Reporter, TrainSpec
from onsight.data.load import keeps_labels_when_mirrored
from onsight.training.prepare import prepare
from onsight.tuning.space import default_space, distributions, values_of


def train(asked: dict, values: dict, epochs: int, seed: int) -> list[float]:
    """Return the validation accuracy after each epoch of a training."""
    fields = asked | values | {"epochs": epochs, "seed": seed, "split_seed": 0}
    return [row["val_accuracy"] for row in onsight.train(TrainSpec(**fields), reporter=Reporter()).history()]


def main() -> None:
    """Train each setting twice with each seed, and correlate."""
    import optuna
    from scipy.stats import kendalltau

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--model", default="cnn_compact")
    parser.add_argument("--settings", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--shots", type=int)
    given = parser.parse_args()
    os.environ["ONSIGHT_RUNS"] = str(given.out / "runs")
    asked = {"data": given.data, "model": given.model, "shots": given.shots}
    prepared = prepare(TrainSpec(**asked, epochs=given.epochs), Reporter())
    space = distributions(default_space(prepared.spec, keeps_labels_when_mirrored(prepared.images.dataset)))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    settings = [values_of(drawn.ask(space).params, prepared.spec.optimizer) for _ in range(given.settings)]
    third = max(1, round(given.epochs / 3))
    for seed in range(given.seeds):
        final, early, short = [], [], []
        for values in settings:
            long = train(asked, values, given.epochs, seed)
            final.append(long[-1])
            early.append(long[third - 1])
            short.append(train(asked, values, third, seed)[-1])
            row = {"seed": seed, "settings": values, "final": final[-1], "early": early[-1], "short": short[-1]}
            print(json.dumps(row), flush=True)
        best = max(final)
        result = {
            "seed": seed, "n": len(settings), "epochs": given.epochs, "rung": third,
            "tau of the early epoch": round(float(kendalltau(early, final).statistic), 3),
            "tau of the short training": round(float(kendalltau(short, final).statistic), 3),
            "lost by the early epoch": round(best - final[early.index(max(early))], 4),
            "lost by the short training": round(best - final[short.index(max(short))], 4),
        }  # fmt: skip
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
