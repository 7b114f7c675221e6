"""The attack on files in short; `make attack` is the whole one."""

import numpy as np
import pytest

from attack.attack_files import FAILURES, attack, results, table
from attack.mutations import mutated, mutated_json
from attack.targets import TARGETS


def test_damage_depends_on_the_seed_alone():
    data = bytes(range(256)) * 4
    found = [mutated(data, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    text = b'{"a": [1, {"b": "c"}], "d": null}'
    changed = {mutated_json(text, np.random.default_rng(seed)) for seed in range(20)}
    assert len(changed) > 10


@pytest.mark.parametrize("kind", TARGETS)
def test_damaged_files_are_refused_or_read(toy_run, tmp_path, kind):
    attack(kind, toy_run.folder, tmp_path, range(12 if kind == "h5" else 25), until=float("inf"))
    rows = results(tmp_path)[kind]
    assert [row["what"] for row in rows if row["outcome"] in FAILURES] == []
    assert kind == "run" or any(row["outcome"] == "refused" for row in rows)
    assert f"| {kind} | {len(rows)} |" in table({kind: rows})
