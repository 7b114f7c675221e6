"""Comparisons of handwritten runs, whose results are known in advance."""

import html
import io
import json
import math
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

import onsight
from edits import metrics_of
from onsight.comparison.compare import compare
from onsight.comparison.comparison import mean_and_deviation, table
from onsight.comparison.page import find_images
from onsight.core.errors import DataError, RunError, SpecError
from onsight.core.files import write_json
from onsight.imaging import decode
from onsight.metrics import intervals, predictions_csv
from onsight.runs.run import Run

CLASSES = ("cat", "dog", "fish")
ROWS = [
    {"name": "conv", "type": "Conv2D", "output_shape": [4, 4, 8], "parameters": 224, "multiply_adds": 3456},
    {"name": "logits", "type": "Dense", "output_shape": [3], "parameters": 27, "multiply_adds": 24},
]


@pytest.fixture
def make(tmp_path):
    """Return a function that writes a run whose predictions are right where `right` is True, and returns the run."""

    def write(
        name, right, *, names=None, labels=None, classes=CLASSES, digest="0" * 64, seconds=30.0, rows=ROWS, **spec
    ):
        folder = tmp_path / name
        right = np.asarray(right, bool)
        n = len(right)
        names = names or [f"test/{i}.png" for i in range(n)]
        labels = np.arange(n) % len(classes) if labels is None else np.asarray(labels)
        scores = np.full((n, len(classes)), 0.1, np.float32)
        scores[np.arange(n), np.where(right, labels, (labels + 1) % len(classes))] = 1 - 0.1 * (len(classes) - 1)
        (folder / "model").mkdir(parents=True)
        (folder / "evaluations" / "test").mkdir(parents=True)
        settings = {
            "data": "toy",
            "model": "cnn",
            "image_size": 24,
            "epochs": 2,
            "seed": 0,
            "learning_rate": 0.1,
        } | spec
        write_json(folder / "spec.json", {"spec": settings, "environment": {"keras": "3", "machine": "a box"}})
        digests = {"test": digest} if digest else {}
        dataset = {
            "name": "toy",
            "classes": list(classes),
            "fingerprint": "f" * 64,
            "digests": digests,
            "provenance": "p",
        }
        write_json(folder / "dataset.json", dataset)
        model = {
            "schema": 1, "model": "cnn", "image_size": 24, "classes": list(classes), "parameters": 251, "layers": rows,
            "weights_sha256": "0" * 64,
        }  # fmt: skip
        write_json(folder / "model" / "model.json", model)
        (folder / "model" / "weights.safetensors").write_bytes(bytes(1004))
        lines = [{"event": "epoch", "epoch": epoch, "seconds": seconds / 2} for epoch in (1, 2)]
        (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        predictions_csv.write_predictions(folder / "evaluations/test/predictions.csv", names, labels, scores, classes)
        shares = scores.clip(1e-3) / scores.clip(1e-3).sum(axis=1, keepdims=True)
        write_json(folder / "evaluations/test/metrics.json", metrics_of(labels, shares, classes))
        return Run(folder)

    return write


def answers(n, wrong):
    right = np.ones(n, bool)
    right[wrong] = False
    return right


def test_the_figures_equal_those_computed_by_hand(make):
    a = make("a", answers(100, range(20)))  # 80 right
    b = make("b", answers(100, range(10, 17)), seconds=60.0, learning_rate=0.2)  # 93 right; a has its 7 mistakes too
    found = compare([a, b])
    assert found.n == 100
    rows = {row["name"]: row for row in found.runs}
    assert (rows["a"]["correct"], rows["b"]["correct"]) == (80, 93)
    assert (rows["b"]["low"], rows["b"]["high"]) == intervals.share_interval(93, 100)
    assert {key: rows["b"][key] for key in ("parameters", "multiply_adds", "weight_bytes", "epochs", "seconds")} == {
        "parameters": 251, "multiply_adds": 3480, "weight_bytes": 1004, "epochs": 2, "seconds": 60.0,
    }  # fmt: skip
    (pair,) = found.pairs
    assert (pair["ahead"], pair["behind"], pair["test"]) == ("b", "a", "McNemar")
    assert [pair[key] for key in ("only_ahead", "only_behind", "both", "neither")] == [13, 0, 80, 7]
    assert pair["difference"] == pytest.approx(0.13)
    assert pair["p"] == pair["corrected"] == pytest.approx(2 / 2**13)  # a single pair needs no correction
    assert pair["low"] < 0.13 < pair["high"]
    assert found.verdict.startswith("b is better than a by 13.0 points (95 % interval ")
    assert str(found) == found.verdict
    assert "exact McNemar test on the same 100 images" in found.verdict
    assert found.settings == [("learning_rate", ["0.2", "0.1"])]
    assert [spec["name"] for spec in found.specs] == ["b", "a"]
    assert found.recognised[0] == ("cat", 34, [pytest.approx(32 / 34), pytest.approx(27 / 34)])
    json.dumps(asdict(found), allow_nan=False)


def test_a_difference_that_could_be_due_to_chance_is_reported_as_such(make):
    found = compare([make("a", answers(60, [0, 1, 2])), make("b", answers(60, [3, 4]), learning_rate=0.2)])
    assert found.verdict.startswith("No difference can be shown: b is ahead of a by 1.7 points, which could be due")
    assert found.pairs[0]["p"] == 1.0
    found = compare([make("c", answers(60, [0])), make("d", answers(60, [1]), learning_rate=0.2)])
    assert "c and d are equally accurate" in found.verdict
    assert found.pairs[0]["difference"] == 0


def test_p_values_of_several_pairs_are_corrected_for_their_number(make):
    runs = [make(name, answers(200, range(k)), learning_rate=k) for name, k in (("a", 40), ("b", 30), ("c", 24))]
    found = compare(runs)
    values = [pair["p"] for pair in found.pairs]
    assert len(values) == 3
    assert [pair["corrected"] for pair in found.pairs] != values
    assert sorted(pair["corrected"] for pair in found.pairs)[0] == pytest.approx(3 * min(values))
    assert found.verdict.startswith("c is better than the next best of 3, b, by 3.0 points")
    assert "corrected for 3 pairs" in found.verdict
    assert any("after Holm" in note for note in found.notes)


def test_seeds_of_one_spec_are_grouped(make):
    wrong = {"a": (20, 24, 22), "b": (10, 12, 17)}
    newer = [{}, {"class_weight": "none", "early_size": None}, {}]  # settings that older runs do not record
    runs = [
        make(
            f"{name}-{i}",
            answers(200, range(k)),
            seed=i,
            split_seed=0,
            learning_rate=0.1 if name == "a" else 0.2,
            **newer[i],
        )
        for name, counts in wrong.items()
        for i, k in enumerate(counts)
    ]
    found = compare(runs)
    assert [(spec["name"], len(spec["runs"])) for spec in found.specs] == [("b-0 (3 seeds)", 3), ("a-0 (3 seeds)", 3)]
    shares = {name: [1 - k / 200 for k in counts] for name, counts in wrong.items()}
    assert found.specs[0]["mean"] == pytest.approx(np.mean(shares["b"]))
    assert found.specs[0]["deviation"] == pytest.approx(np.std(shares["b"], ddof=1))
    assert mean_and_deviation(found.specs[1], found.n) == "89.0 % ± 1.0 (3 seeds, n = 200 each)"
    (pair,) = found.pairs  # rather than the fifteen pairs of six runs
    assert pair["test"] == "seeds"
    assert pair["p"] == pytest.approx(stats.ttest_ind(shares["a"], shares["b"], equal_var=False).pvalue)
    assert (pair["only_ahead"], pair["only_behind"]) == (10, 0)  # of the middle runs, with 12 and 22 mistakes
    assert found.settings == [("learning_rate", ["0.2", "0.1"])]
    assert "Welch's t-test over the seeds" in found.verdict


def test_seeds_of_a_single_spec_are_compared_as_runs_and_one_run_with_seeds(make):
    seeds = [make(f"a-{i}", answers(100, range(k)), seed=i) for i, k in enumerate((10, 12, 30))]
    found = compare(seeds)
    assert len(found.specs) == 1
    assert [pair["test"] for pair in found.pairs] == ["McNemar"] * 3
    assert found.settings == []
    found = compare([*seeds[:2], make("b", answers(100, range(60)), learning_rate=1.0)])
    assert found.pairs[0]["test"] == "seeds"
    assert math.isnan(found.pairs[0]["p"])
    assert (
        "(it cannot be told whether this is chance: with 2 seeds against 1, while a test takes three" in found.verdict
    )
    alike = [make(f"c-{i}", answers(100, range(10)), seed=i, learning_rate=0.3) for i in range(3)]
    same = [make(f"d-{i}", answers(100, range(20)), seed=i, learning_rate=1.0) for i in range(3)]
    found = compare([*alike, *same])
    assert math.isnan(found.pairs[0]["p"])
    assert "points (the seeds show no spread, so chance cannot be ruled out)" in found.verdict
    compare([*alike, make("e", answers(100, range(25)), learning_rate=2.0)], page="compare.html")


def test_the_page_names_the_interval_and_the_test_of_each_kind_of_pair(make):
    seeds = [make(f"a-{i}", answers(100, range(k)), seed=i) for i, k in enumerate((10, 12))]
    single = [make(name, answers(100, range(k)), learning_rate=k) for name, k in (("b", 40), ("c", 60))]
    paired = "paired difference (Bonett and Price 2012; exact McNemar test)"
    means = "difference of the means (Welch's t-test over the seeds)"
    for runs, words, column in (
        (single, f"interval of the {paired}. p is", []),
        ([*seeds, single[0]], f"interval of the {means}. p is", []),
        ([*seeds, *single], f"{paired} for two single runs, and of the {means} where a side has several seeds",
         ["McNemar", "t-test", "t-test"]),
    ):  # fmt: skip
        compare(runs, page="compare.html")
        source = html.unescape(Path("compare.html").read_text()).replace("\u00a0", " ")
        assert words in source
        assert sorted(re.findall('<td class="roomy">(McNemar|t-test)</td>', source)) == column
        assert ("several seeds. p is" in source) == bool(column)


def test_the_best_of_several_equals_is_said_to_be_flattered(make):
    """Ten runs of the same accuracy: the excess of the best one is the simulated one, and two runs get no such note."""
    rng = np.random.default_rng(0)
    hard = rng.beta(0.3, 0.03, 1000)  # the probability that a run has an image right: most are easy for all
    simulated = [(rng.random((10, 1000)) < hard).mean(axis=1).max() - hard.mean() for _ in range(200)]
    runs = [make(f"r{i}", answers(1000, np.flatnonzero(rng.random(1000) >= hard)), lr=i) for i in range(10)]
    found = compare(runs)
    (note,) = [note for note in found.notes if "flattered" in note]
    said = float(re.search(r"still be ([0-9.]+) points too high", note)[1])
    assert 0.3 < said == pytest.approx(100 * np.mean(simulated), rel=0.25)
    assert not any("flattered" in note for note in compare(runs[:2]).notes)


def test_seeds_far_apart_fit_on_the_axis(make):
    """With two degrees of freedom, the interval of these seeds is wider than accuracies can differ."""
    wide = [make(f"a-{i}", answers(100, range(k)), seed=i) for i, k in enumerate((100, 0, 100))]
    near = [make(f"b-{i}", answers(100, range(k)), seed=i, learning_rate=1.0) for i, k in enumerate((50, 51, 50))]
    found = compare([*wide, *near], page="compare.html")
    assert (found.pairs[0]["low"], found.pairs[0]["high"]) == (-1, 1)


def test_seeds_with_a_time_budget_belong_to_one_spec(make):
    budget = {"time_budget": "5m", "learning_rate": 0.2}
    seeds = [make(f"a-{i}", answers(60, range(k)), seed=i, epochs=90 + i, **budget) for i, k in enumerate((5, 7))]
    found = compare([*seeds, make("b", answers(60, range(9)), epochs=90)])
    assert [len(spec["runs"]) for spec in found.specs] == [2, 1]


def test_runs_that_cannot_be_compared_are_refused(make, tmp_path):
    a = make("a", answers(30, [1]))
    with pytest.raises(SpecError, match="two or more"):
        compare([a])
    with pytest.raises(SpecError, match="given twice"):
        compare([a, tmp_path / "a"])
    with pytest.raises(RunError, match="no run at"):
        compare([a, tmp_path / "nowhere"])
    bare = make("bare", answers(30, [1]))
    (bare.folder / "evaluations/test/predictions.csv").unlink()
    with pytest.raises(RunError, match=r"1 of 2 runs has not been evaluated(.|\n)*onsight evaluate .*bare"):
        compare([a, bare])
    labels = np.arange(30) % 3
    labels[4] = 0
    with pytest.raises(DataError, match=r"'test/4.png' is dog for a and cat for other \(1 image in total\)"):
        compare([a, make("other", answers(30, [1]), labels=labels, digest=None)])
    with pytest.raises(DataError, match="same names but different content"):
        compare([a, make("changed", answers(30, [1]), digest="1" * 64)])


def test_different_images_are_refused_or_reduced_to_the_common_ones(make):
    a = make("a", answers(30, [1]))
    fewer = make(
        "fewer", answers(20, [2, 3]), names=[f"test/{i}.png" for i in range(15)] + list("vwxyz"), digest="1" * 64
    )
    with pytest.raises(DataError, match=r"only 15 of 30 are common to all. .*--common"):
        compare([a, fewer])
    found = compare([a, fewer], common=True, page="compare.html")
    assert "onsight compare a fewer --common" in re.sub("<.*?>", "", Path("compare.html").read_text("utf-8"))
    for place, message in (("nowhere/x.html", "no folder 'nowhere'"), (".", "is a folder")):
        with pytest.raises(SpecError, match=message):
            compare([a, fewer], page=place)
    assert (found.n, [row["correct"] for row in found.runs]) == (15, [14, 13])
    assert "15 images that all runs were tested on" in found.notes[0]
    with pytest.raises(DataError, match="none of 30 is common to all"):
        compare([a, make("none", answers(3, []), names=list("xyz"))], common=True)


def test_classes_in_another_order_are_matched_by_name(make):
    a = make("a", answers(30, [1]))
    labels = np.array([("dog", "fish", "cat").index(CLASSES[i % 3]) for i in range(30)])
    b = make("b", answers(30, [1, 2, 3]), classes=("dog", "fish", "cat"), labels=labels, learning_rate=0.2)
    assert [row["correct"] for row in compare([a, b]).runs] == [29, 27]


def test_runs_of_older_versions_are_compared_without_cost(make):
    older = [{key: row[key] for key in row if key != "multiply_adds"} for row in ROWS]
    a, b = make("a", answers(30, [1]), rows=older), make("b", answers(30, [1, 2, 3]), learning_rate=0.2)
    (b.folder / "model/model.json").write_text('{"schema": 0}')
    found = compare([a, b], page="compare.html")
    assert [(row["parameters"], row["multiply_adds"]) for row in found.runs] == [(251, None), (None, None)]
    assert any("costs are missing" in note for note in found.notes)
    assert table(found)[0][1][3:5] == ("251", "–")


def test_the_page_shows_the_images_on_which_the_runs_disagree(make, tmp_path):
    toy = onsight.load_dataset("toy")
    test = np.flatnonzero(toy.parts == "test")
    names = [toy.names[i] for i in test]
    arguments = {"names": names, "labels": toy.labels[test], "classes": toy.classes}
    a = make("a", answers(60, [0, 5]), **arguments)
    b = make("b", answers(60, [7]), **arguments, learning_rate=0.2)
    found = compare([a, b], page=tmp_path / "out.html")
    page = (tmp_path / "out.html").read_text()
    assert page.count("data:image/webp;base64,") == 3
    assert found.verdict in page.replace("&#39;", "'")
    assert "Only <b><bdi>b</bdi></b> is right: 2 images" in page
    assert names[7] in page
    assert "http" not in page.replace('http-equiv="', "")
    assert str(tmp_path) not in page


def test_the_page_has_no_images_if_the_data_is_gone(make, tmp_path):
    a, b = make("a", answers(30, [1]), data="/nowhere"), make("b", answers(30, [2, 3]), data="/nowhere", seed=1)
    compare([a, b], page=tmp_path / "out.html")
    page = (tmp_path / "out.html").read_text()
    assert "data:image" not in page
    assert "some cannot be shown: No data set &#39;/nowhere&#39;" in page
    # A named data set that is not on this machine is not downloaded.
    c, d = make("c", answers(30, [1]), data="cifar10"), make("d", answers(30, [2, 3]), data="cifar10", seed=1)
    compare([c, d], page=tmp_path / "out.html")
    assert "CIFAR-10 is not on this machine" in (tmp_path / "out.html").read_text()


def test_names_are_escaped(make, tmp_path):
    classes = ("<img src=x onerror=alert(1)>", "</style><script>alert(2)</script>", "\u202eevil")
    names = [f'"><script>alert({i})</script>.png' for i in range(30)]
    runs = [make(f"<b>run{i}", answers(30, [i]), names=names, classes=classes, learning_rate=i) for i in (1, 2)]
    compare(runs, page=tmp_path / "out.html")
    page = (tmp_path / "out.html").read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "<b>run" not in page
    assert "\u202e" not in page
    assert "default-src 'none'" in page


def test_many_classes_and_pairs_are_folded(make, tmp_path):
    classes = [f"class {i}" for i in range(40)]
    runs = [make(f"r{i}", answers(80, range(i)), classes=classes, learning_rate=i) for i in range(8)]
    found = compare(runs, page=tmp_path / "out.html")
    page = (tmp_path / "out.html").read_text()
    assert len(found.pairs) == 28
    assert "The other 15 classes" in page
    assert "The other 3 pairs" in page
    assert "Images are shown for the first 6 of 28 pairs" in page


def test_the_command_line(make, tmp_path, monkeypatch, capsys):
    from onsight.__main__ import main

    runs = [make(name, answers(90, range(k)), learning_rate=k) for name, k in (("a", 30), ("b\x1b[31m", 5))]
    monkeypatch.setattr(sys, "argv", ["onsight", "compare", *(str(run.folder) for run in runs)])
    main()
    out = capsys.readouterr().out
    assert "66.7 %" in out
    assert "is better than a by 27.8 points" in out
    assert "\x1b" not in out
    assert out.endswith("Page: compare.html\n")
    assert (tmp_path / "compare.html").exists()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--format", "json", "--out", "b.html"])
    main()
    assert json.loads(capsys.readouterr().out)["n"] == 90
    monkeypatch.setattr(sys, "argv", ["onsight", "compare", str(runs[0].folder)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2


def test_compare_imports_no_framework(make):
    a, b = make("a", answers(30, [1])), make("b", answers(30, [2, 3]), learning_rate=0.2)
    code = (
        "import sys, onsight; onsight.compare(sys.argv[1:], page='compare.html'); "
        "print([name for name in ('keras', 'tensorflow', 'jax') if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, a.folder, b.folder], capture_output=True, text=True, check=True, timeout=120
    )
    assert ran.stdout.strip() == "[]"


def test_runs_written_by_train_and_evaluate_can_be_compared(toy_run, tmp_path):
    import shutil

    copy = shutil.copytree(toy_run.folder, tmp_path / "copy")
    found = compare([toy_run, copy])
    assert found.pairs[0]["difference"] == 0
    assert found.runs[0]["multiply_adds"] > found.runs[0]["parameters"]


@pytest.mark.parametrize(("spec", "fit"), [({}, "cut"), ({"fit": "pad"}, "pad")])  # older runs have no fit
def test_the_images_fit_as_the_run_saw_them(make, wide_photos, spec, fit):
    run = make("a", [True] * 6, data=str(wide_photos), **spec)
    found, missing = find_images(run, {"red/0.png": "red"})
    assert missing == ""
    shown = np.asarray(Image.open(io.BytesIO(found["red/0.png"])))
    assert np.array_equal(shown, decode.load(wide_photos / "red" / "0.png", 24, fit))
