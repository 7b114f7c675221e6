#!/usr/bin/env python3
"""Compare `tune` with a random search of the same time and with the preset, on CIFAR-10.

    python benchmarks/tune_cifar10.py OUT [--data cifar10] [--model cnn_dropout] [--budget 1h] [--seeds 1] [--epochs N]
        [--shots N] [--find-learning-rate]

Set ONSIGHT_DATA to the folder of the official archive. Both searches have the same space. The random search trains each
draw on all epochs; both begin with the preset, whose training counts for both. Each search chooses by the validation
images. The test images are opened once, at the end: the winners and the preset are scored on them, and each winner is
compared with the preset by the exact McNemar test. Results are JSON lines on standard output.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

import onsight
from onsight import Reporter, TrainSpec
from onsight.core.text import seconds_of
from onsight.metrics.intervals import paired
from onsight.runs.run import Run
from onsight.tuning.space import distributions
from onsight.tuning.trials import right_of, spec_of, values_in


def search_at_random(study: onsight.Study, preset: Run, budget: float, seed: int) -> tuple[Run, int]:
    """Train random draws from the space of `study` until the time is used up; return the best run and their number.

    The best may be the preset, whose training counts for the budget.
    """
    import optuna

    record, space = study.record, distributions(study.record["space"])
    sampler = optuna.samplers.RandomSampler(seed=seed)
    drawn = optuna.create_study(sampler=sampler)
    runs, longest = [preset], sum(row["seconds"] for row in preset.history())
    spent = longest
    while spent + longest <= budget:
        started = time.perf_counter()
        values = values_in(record, drawn.ask(space).params)
        spec = spec_of(record, values, len(record["divisors"]) - 1)
        try:
            runs.append(onsight.train(spec, reporter=Reporter()))
        except onsight.TrainingError as error:  # diverged
            print(json.dumps({"failed": str(error)}), flush=True)
        seconds = time.perf_counter() - started
        spent, longest = spent + seconds, max(longest, seconds)
    return max(runs, key=lambda run: right_of(run).mean()), len(runs) - 1


def answers(run: Run) -> np.ndarray:
    """Score a run on the test images; return whether each is right."""
    table = onsight.evaluate(run, reporter=Reporter()).predictions
    return np.asarray(table.probabilities.argmax(axis=1) == table.labels)


def compare(name: str, run: Run, right: np.ndarray, preset: np.ndarray) -> dict:
    """Return the test accuracy of a run and its lead over the preset."""
    lead = paired(int((preset & ~right).sum()), int((right & ~preset).sum()), len(right))
    changed = {
        key: value for key, value in run.record["asked"].items() if key not in ("data", "model", "seed", "shots")
    }
    return {
        "test": name, "n": len(right), "accuracy": round(float(right.mean()), 5), "lead": round(lead.value, 5),
        "low": round(lead.low, 5), "high": round(lead.high, 5), "p": lead.p, "settings": changed,
    }  # fmt: skip


def main() -> None:
    """Search with each seed, then open the test set once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--model", default="cnn_dropout")
    parser.add_argument("--budget", default="1h")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--shots", type=int)
    parser.add_argument("--find-learning-rate", action="store_true")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    os.environ["ONSIGHT_RUNS"] = str(asked.out / "runs")
    budget = seconds_of(asked.budget)
    chosen: list[tuple[str, Run, Run]] = []
    for seed in range(asked.seeds):
        spec = TrainSpec(asked.data, model=asked.model, epochs=asked.epochs, shots=asked.shots, seed=seed)
        started = time.perf_counter()
        study = onsight.tune(
            spec, time_budget=asked.budget, study=asked.out / f"study-{seed}",
            find_learning_rate=asked.find_learning_rate, reporter=Reporter(),
        )  # fmt: skip
        wall = time.perf_counter() - started
        trained = sum(each.seconds or 0.0 for trial in study.trials for each in trial.trainings)
        facts = {"seed": seed, "wall": round(wall, 1), "training": round(trained, 1),
                 "overhead": round((wall - trained) / trained, 4), "trials": len(study.trials) - 1,
                 "sentences": study.sentences}  # fmt: skip
        print(json.dumps(facts), flush=True)
        first = next(trial for trial in study.trials if trial.number == 0)
        preset = Run(study.folder / "runs" / f"training-{first.trainings[0].number:04d}")
        best, draws = search_at_random(study, preset, budget, seed)
        facts = {"random": draws, "validation": float(right_of(best).mean()), "preset": float(right_of(preset).mean())}
        print(json.dumps({"seed": seed, **facts}), flush=True)
        assert study.run is not None
        chosen += [(f"tune {seed}", study.run, preset), (f"random {seed}", best, preset)]
    scored: dict[Path, np.ndarray] = {}
    for name, run, preset in chosen:  # the test set is opened here, after every choice
        for each in (run, preset):
            if each.folder not in scored:
                scored[each.folder] = answers(each)
        print(json.dumps(compare(name, run, scored[run.folder], scored[preset.folder])), flush=True)


if __name__ == "__main__":
    main()
