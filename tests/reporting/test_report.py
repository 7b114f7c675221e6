"""The report is correct in every state of a run, and never executes content of a run."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from edits import metrics_of
from onsight.comparison.matching import label_runs
from onsight.core.errors import RunError
from onsight.display.page import TEMPLATES
from onsight.metrics.predictions_csv import write_predictions
from onsight.metrics.scores import coverage_curve
from onsight.reporting.commands import train_command
from onsight.reporting.report import report
from onsight.reporting.verdict import verdict
from onsight.runs.run import Run

# The smallest valid PNG file.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
JPEG = b"\xff\xd8\xff"  # the report checks only these first bytes
OFFICIAL = "official CIFAR-10 (checksums match)"
HOSTILE = ["<script>alert(1)</script>", "\"'><img src=https://evil.example/x onerror=alert(1)>", "$x$", "{{ 7 * 7 }}",
           "</style><svg/onload=alert(1)>", "a\x1b[31m\nb", "\u202edrow", "javascript:alert(1)", "&lt;b&gt;",
           "x" * 500]  # fmt: skip


TAGS = re.findall(  # all tags that the template writes
    r"\w+",
    """html head meta title style body header p h1 h2 h3 nav a section aside ul ol li div pre span b i br bdi code
    figure img figcaption svg defs image use path text rect circle table thead tbody th tr td dl dt dd details
    summary footer script""",
)


def predicted(classes, accuracy=0.8, sure=0.8, n=1000):
    """Return labels and probabilities with this accuracy and confidence; each mistake predicts the next class."""
    count = len(classes)
    labels = np.arange(n) % count
    guess = np.where(np.arange(n) < accuracy * n, labels, (labels + 1) % count)
    rest = (1 - sure) / (count - 1)
    return labels, np.full((n, count), rest) + (sure - rest) * np.eye(count)[guess]


def epochs(n, *, training=0.02, validated=True):
    """Return n epochs with rising accuracy; training accuracy is above validation accuracy by `training`."""
    rows = []
    for epoch in range(1, n + 1):
        held_out = 0.8 - 0.3 / epoch
        row = {"event": "epoch", "epoch": epoch, "loss": 1 / epoch, "accuracy": held_out + training,
               "learning_rate": 0.1, "seconds": 12.0, "images_per_second": 4000.0}  # fmt: skip
        rows.append(row | ({"val_loss": 2 / epoch, "val_accuracy": held_out} if validated else {}))
    return rows


@pytest.fixture
def make(tmp_path):
    """Return a function that makes a run folder."""

    def make(
        state="evaluated", *, classes=("cat", "dog", "ship"), provenance=OFFICIAL, history=None, spec=(), asked=(),
        uses=1, result=None, name="cifar10-cnn-0001",
    ):  # fmt: skip
        folder = tmp_path / "runs" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        history = epochs(4) if history is None else history
        settings = {
            "data": "cifar10", "preset": "balanced", "model": "cnn", "epochs": 4, "patience": 0, "augmentation": "flip",
            "validation": 0.1, "weight_decay": 5e-4, "allow_tiny": False, "data_dir": None, **dict(spec),
        }  # fmt: skip
        record = {"schema": 1, "asked": {"data": "cifar10", **dict(asked)}, "spec": settings,
                  "reasons": {"model": "preset balanced"},
                  "environment": {"keras": "3.15.1", "backend_version": "2.21"}}  # fmt: skip
        (folder / "spec.json").write_text(json.dumps(record))
        counts = {part: dict.fromkeys(classes, n) for part, n in (("train", 1500), ("validation", 500), ("test", 400))}
        dataset = {
            "name": "cifar10",
            "classes": list(classes),
            "provenance": provenance,
            "fingerprint": "f00d",
            "counts": counts,
        }
        (folder / "dataset.json").write_text(json.dumps(dataset))
        lines = [json.dumps(row) for row in history] + ['{"event": "tick", "step": 3}', '{"event": "epoch", "epo']
        (folder / "history.jsonl").write_text("\n".join(lines))
        if state == "training":
            return folder
        (folder / "model").mkdir()
        layers = [{"name": "conv1", "type": "Conv2D", "output_shape": [32, 32, 16], "parameters": 448}]
        model = {
            "schema": 1,
            "model": "cnn",
            "image_size": 32,
            "classes": list(classes),
            "parameters": 161098,
            "layers": layers,
        }
        (folder / "model" / "model.json").write_text(json.dumps(model))
        (folder / "curves.png").write_bytes(PNG + b"curves")
        if state == "trained":
            return folder
        add_evaluation(folder, "test", classes, provenance, result)
        (folder / "test_uses.jsonl").write_text(
            '{"time": "2026-11-21T09:00:00+00:00", "reason": "evaluate"}\n' * uses
            + '{"time": "2026-11-21T09:30:00+00:00", "reason": "export", "scored": false}\n' * (uses > 1)
            + '{"ti'
        )
        return folder

    return make


def add_evaluation(
    folder, name, classes, provenance, result=None, drawn=("samples", "confusion", "predictions", "mistakes")
):
    evaluation = folder / "evaluations" / name
    evaluation.mkdir(parents=True)
    labels, probabilities = result or predicted(classes)
    metrics = metrics_of(labels, probabilities, classes, provenance=provenance)
    (evaluation / "metrics.json").write_text(json.dumps(metrics))
    for each in drawn:
        (evaluation / f"{each}.png").write_bytes(PNG + f"{name}-{each}".encode())


class Page(HTMLParser):
    """A strict parser of a page: collects its tags, attributes and text, and checks that every tag is closed."""

    VOID = ("meta", "img", "path", "br", "hr", "text-path")

    def __init__(self, path):
        super().__init__()
        self.tags, self.attributes, self.words, self.open = [], [], [], []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", "".join(self.words)).replace("\u00a0", " ")

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.words.append(" " * (tag in ("th", "td", "tr")))

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def embedded(self):
        sources = [value for name, value in self.attributes if name == "src" or (name == "href" and value[0] != "#")]
        return [base64.b64decode(source.partition(";base64,")[2]) for source in sources]


def test_the_heading_says_whether_the_model_sees_whole_images(padded_run, toy_run):
    assert "32 × 32 pixels of the whole image," in padded_run.report.read_text("utf-8")
    assert "of the whole image" not in toy_run.report.read_text("utf-8")


def test_page_of_an_evaluated_run(make):
    folder = make()
    path = report(folder)
    assert path == folder / "report.html"
    page = Page(path)
    for words in (
        "cifar10-cnn-0001", "80.0 % of 1,000 test images are classified correctly (95 %: 77.4 to 82.4)", OFFICIAL,
        "161,098 parameters", "conv1", "32 × 32 × 16", "preset balanced", "asked for", "backend version 2.21",
        "The test set was used once", "2026-11-21 09:00 UTC (evaluate)", "f00d",
        "In all 3 classes: train 4,500, validation 1,500, test 1,200",
        "4 epochs in 48 s, 4,000 images per second", "onsight train cifar10", "Brier score",
    ):  # fmt: skip
        assert words in page.text, words
    assert re.findall(r"<h2>(.*?)</h2>", page.source) == [
        "Learning curves", "Which classes the model confuses", "Robustness", "Data", "Network", "Recipe",
    ]  # fmt: skip
    assert page.text.count("onsight evaluate runs/cifar10-cnn_compact") == 0
    for missing in ("evaluate runs/cifar10-cnn-0001 --robustness", "onsight check cifar10"):
        assert missing in page.text


def test_all_sections_in_order(make):
    folder = make()
    add_everything(folder)
    page = Page(report(folder))
    assert re.findall(r"<h2>(.*?)</h2>", page.source) == [
        "Learning curves", "Which classes the model confuses", "Worst errors", "Suspected label errors", "Calibration",
        "Robustness", "Slices", "Data", "Network", "Recipe",
    ]  # fmt: skip
    for words in (
        "The most confident mistake.", "(Grad-CAM)", "low high influence",
        "predicted dog 90.0 %, labelled cat 5.0 %",
        "1 of 1,000 labels look wrong to the model (confident joint)", "labelled cat (5.0 %), looks like dog (90.0 %)",
        "before temperature scaling on validation images (temperature 1.500)", "the model answers “unsure”",
        "60.0 % of corrupted images are classified correctly", "Worst: gaussian noise at severity 5, 40.0 %",
        "CIFAR-10-C style",
        "camera nikon 400 50.0 %", "Significantly less accurate than the rest: camera “nikon” (50.0 %).",
        "in test and in train", "123,456 multiply-adds per image", "Random test images with their labels:",
    ):  # fmt: skip
        assert words in page.text, words
    assert page.embedded() == [JPEG + b"thumbnails", JPEG + b"heat"]
    assert page.text.index("in test and in train") < page.text.index("12 grey images")  # errors first
    assert 'class="worse"' in page.source


def add_everything(folder, classes=("cat", "dog", "ship"), path="test/1.jpg", n=1000):
    """Add the files that evaluate, check and the other commands write into a run."""
    test = folder / "evaluations" / "test"
    labels, probabilities = predicted(classes, n=n)
    write_predictions(test / "predictions.csv", [f"{path}{i}" for i in range(n)], labels, probabilities, classes)
    write = lambda at, value: at.write_text(json.dumps(value))  # noqa: E731
    (test / "thumbnails.jpg").write_bytes(JPEG + b"thumbnails")
    cells = [(i, j) for i in range(len(classes)) for j in (i, (i + 1) % len(classes))]
    write(test / "thumbnails.json", {
        "side": 32, "columns": 2, "cells": len(cells), "path": [f"{path}{i}" for i in range(len(cells) + 1)],
        "label": [i for i, _ in cells] + [0], "predicted": [j for _, j in cells] + [0],
        "probability": [0.75] * (len(cells) + 1), "samples": [0, 2],
    })  # fmt: skip
    (test / "heatmaps").mkdir()
    (test / "heatmaps" / "01.jpg").write_bytes(JPEG + b"heat")
    mistake = {"path": path, "label": 0, "predicted": 1, "probability": 0.9, "probability_of_label": 0.05}
    write(test / "heatmaps" / "index.json", {"method": "Grad-CAM", "mistakes": [mistake | {"file": "01.jpg"}]})
    suspect = {"path": f"{path}0", "part": "test", "label": classes[0], "suggested": classes[1],
               "probability_of_label": 0.05, "probability_of_suggested": 0.9}  # fmt: skip
    write(test / "label_errors.json", {"method": "confident joint", "checked": n, "suspects": [suspect]})
    corruptions = {"gaussian_noise": [0.8, 0.7, 0.6, 0.5, 0.4], "fog": [0.6] * 5}
    write(test / "robustness.json", {
        "title": "CIFAR-10-C style", "n": n, "seed": 0, "quick": False, "clean": 0.8, "mean": 0.6,
        "corruptions": corruptions, "worst": ["gaussian_noise", 5, 0.4], "notes": ["regenerated"],
    })  # fmt: skip
    bad = {"by": "camera", "value": "nikon", "n": 400, "correct": 200, "accuracy": 0.5, "low": 0.45, "high": 0.55}
    write(test / "slices.json", {"slices": [bad | {"worse": True}, bad | {"value": "sony", "worse": False}]})
    found = [("note", "12 grey images"), ("error", "5 images are in test and in train")]
    about = {"kind": "x", "count": 1, "advice": ""}
    listed = [about | {"severity": severity, "text": text} for severity, text in found]
    write(folder / "check.json", {"counts": {}, "findings": listed})
    model = json.loads((folder / "model" / "model.json").read_text()) | {"temperature": 1.5, "threshold": 0.7}
    model["layers"][0]["multiply_adds"] = 123456
    write(folder / "model" / "model.json", model)


@pytest.mark.parametrize("complete", [True, False])
def test_a_check_without_findings_says_what_was_searched(make, complete):
    folder = make()
    (folder / "check.json").write_text(json.dumps({"complete": complete, "counts": {}, "findings": []}))
    text = Page(report(folder)).text
    assert ("no copies and no near-duplicates" in text) == complete
    assert ("Near-duplicates were not searched for. To search: onsight check" in text) != complete


def test_the_page_says_why_no_label_errors_are_listed(make):
    folder = make()
    reason = "not listed: the model is wrong on 50.0 % of 9 images, so most of its objections would be false"
    found = {"method": "confident joint", "checked": 0, "suspects": [], "not_listed": [reason]}
    (folder / "evaluations" / "test" / "label_errors.json").write_text(json.dumps(found))
    text = Page(report(folder)).text.replace("\u00a0", " ")
    assert f"N{reason[1:]}." in text
    assert "labels looks wrong" not in text


def test_files_that_are_not_images_are_left_out(make):
    folder = make()
    add_everything(folder)
    test = folder / "evaluations" / "test"
    (test / "thumbnails.jpg").write_text("root:x:0:0")
    index = json.loads((test / "heatmaps" / "index.json").read_text())
    (folder / "secret.jpg").write_bytes(JPEG)
    index["mistakes"][0]["file"] = "../../../secret.jpg"
    (test / "heatmaps" / "index.json").write_text(json.dumps(index))
    suspects = json.loads((test / "label_errors.json").read_text())
    suspects["suspects"][0]["thumbnail"] = "../../../secret.jpg"
    (test / "label_errors.json").write_text(json.dumps(suspects))
    page = Page(report(folder))
    assert page.embedded() == []
    assert "Worst errors" not in page.text
    assert "this evaluation stored none. To store them: onsight evaluate runs/cifar10-cnn-0001" in page.text


@pytest.mark.parametrize(
    ("name", "content"),
    [("slices.json", "{}"), ("slices.json", "[1"), ("thumbnails.json", '{"side": 32}'), ("robustness.json", '{"n": 1}'),
     ("heatmaps/index.json", '{"mistakes": [{}]}'), ("label_errors.json", '{"suspects": [3]}')],
)  # fmt: skip
def test_a_damaged_file_raises_an_error(make, name, content):
    folder = make()
    add_everything(folder)
    (folder / "evaluations" / "test" / name).write_text(content)
    with pytest.raises(RunError, match="damaged"):
        report(folder)


def test_coverage_curve_keeps_ties_together():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.6, 0.4]])
    labels = np.array([0, 0, 0, 1])
    right = probabilities.argmax(axis=1) == labels
    assert coverage_curve(probabilities.max(axis=1), right, 200) == [
        {"coverage": 0.25, "accuracy": 1.0, "threshold": 0.9},
        {"coverage": 0.75, "accuracy": 2 / 3, "threshold": 0.8},  # both images with 0.8, or neither
        {"coverage": 1.0, "accuracy": 0.5, "threshold": 0.6},
    ]


@pytest.mark.parametrize(
    ("state", "history", "words", "command"),
    [
        ("training", [], "0 of 4 epochs", "onsight train --resume runs/cifar10-cnn-0001"),
        (
            "training",
            epochs(2),
            "Training has not finished: 2 of 4 epochs",
            "onsight train --resume runs/cifar10-cnn-0001",
        ),
        ("trained", None, "not evaluated yet", "onsight evaluate runs/cifar10-cnn-0001"),
        ("evaluated", None, "80.0 %", "onsight train cifar10 --epochs 8"),
    ],
)
def test_every_state_of_a_run(make, state, history, words, command):
    folder = make(state, history=history)
    page = Page(report(folder))
    assert words in page.text
    assert command in page.text
    assert verdict(folder)[-1].endswith(f": {command}")
    assert ("There is no model/model.json yet" in page.text) == (state == "training")
    assert ("Learning curves" in page.text) == (history != [])


def test_curves_are_drawn_from_the_history(make):
    folder = make("training", history=epochs(2))
    page = Page(report(folder))
    assert page.source.count('<figure class="chart">') == 3
    assert "65 %" in page.text  # the best validation accuracy, ringed
    assert page.embedded() == []
    assert len(Page(report(make("training", history=epochs(2, validated=False)))).source) < len(page.source)


def test_one_epoch_is_told_in_numbers(make):
    page = Page(report(make("training", history=epochs(1))))
    for words in ("The only epoch", "Learning curves need two epochs."):
        assert words in page.text
    for name, value in (("training accuracy", "52.0"), ("validation loss", "2.000"), ("learning rate", "0.1")):
        assert f"<dt>{name}</dt><dd>{value}" in page.source
    assert '<figure class="chart">' not in page.source
    assert "The only epoch" not in Page(report(make("training", history=epochs(2)))).text


@pytest.mark.parametrize(("count", "shown"), [(5, False), (10, False), (19, False), (20, True), (100, True)])
def test_top_k_is_shown_only_if_guessing_rarely_gets_it_right(make, count, shown):
    page = Page(report(make(classes=[f"class {i}" for i in range(count)])))
    assert ("top-5 accuracy" in page.text) == shown
    assert shown or "top-" not in page.text


def test_the_words_about_the_marks_hold_in_either_theme(make):
    folder = make()
    add_everything(folder)
    text = Page(report(folder)).text
    assert "Short lines: how often they should be." in text
    assert "lack mark" not in text


def test_content_of_a_run_is_not_executed_and_nothing_is_fetched(make):
    folder = make(
        classes=HOSTILE, provenance="<img src=//evil.example>", spec={"model": "<u>", "data": "$(reboot)"},
        asked={"data": "$(reboot)"}, name="run 'x'",
    )  # fmt: skip
    add_evaluation(folder, "<em>", HOSTILE, "<script>")
    add_everything(folder, HOSTILE, path="</script><img src=x onerror=alert(1)>")
    page = Page(report(folder))  # the parser also checks that every tag is closed
    assert not {"iframe", "link", "object", "embed", "form", "base"} & set(page.tags)
    assert set(page.tags) <= set(TAGS)
    for name, value in page.attributes:
        assert not name.startswith("on"), name
        if name in ("src", "href"):
            assert value.startswith(("data:image/jpeg;base64,", "#")), value
        if name == "style":
            assert re.fullmatch(r"left:[\d.]+%(;right:calc\(100% - [\d.]+%\))?|--s:\d+", value), value
    assert "url(" not in page.source
    assert "@import" not in page.source
    *islands, script = re.findall(r"<script.*?>(.*?)</script>", page.source, re.S)
    assert script == (TEMPLATES / "report.js").read_text()
    assert len(islands) == 2
    assert not set("<>&") & set("".join(islands))
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{known}'"
    assert policy in [value for name, value in page.attributes if name == "content"]
    assert page.source.index("Content-Security-Policy") < page.source.index("<style>")
    for name in ("<script>alert(1)</script>", "$x$", "{{ 7 * 7 }}", "&lt;b&gt;", "onsight train '$(reboot)'"):
        assert name in page.text, name
    assert "\x1b" not in page.source
    assert "\u202e" not in page.source


def test_the_verdict_is_safe_to_print(make):
    for sentence in verdict(
        make(classes=HOSTILE[5:], provenance="\x1b]0;title\x07", asked={"data": "a\x1b[2Jb"}, name="a;b")
    ):
        assert sentence.isprintable(), sentence
        assert len(sentence) < 400


def test_names_that_are_not_unicode(make):
    Page(report(make(classes=["a\udcff", "b"], provenance="folder /home/\udcff")))


def test_facts_about_cifar10_are_shown_for_official_data_only(make):
    fact = "One human annotator gets 95.24 % right"
    assert fact in Page(report(make())).text
    for other in (
        "official CIFAR-100 (checksums match)",
        "unverified copy of CIFAR-10",
        "official CIFAR-10-C",
        "my CIFAR-10",
    ):
        assert fact not in Page(report(make(provenance=other))).text


def test_the_facts_about_cifar10_are_those_of_their_sources(make):
    """ciFAIR's list has 286 test images with a copy in training, label-errors' answers have the counts named here."""
    text = " ".join(Page(report(make())).text.split())
    assert "286 of the 10,000 test images (2.86 %) have a near-duplicate among the training images" in text
    assert "39 pairs lie within the test set" in text
    assert "fewer than three confirmed 54 of them, most rejected 37, and for 18 most agreed on another class" in text
    assert "labels are wrong" not in text


@pytest.mark.parametrize(("ece", "words"), [(0.030, "Over-confident: "), (0.019, "Neither over- nor under-confident")])
def test_over_confidence_needs_an_error_beyond_noise(make, ece, words):
    """The mean confidence lies above the interval of the accuracy in both cases; noise alone shows up to 2.0 points."""
    run = make()
    path = run / "evaluations" / "test" / "metrics.json"
    metrics = json.loads(path.read_text())
    changed = {"confidence": metrics["accuracy_interval"][1] + 0.001, "ece": ece, "ece_noise": [0.008, 0.02]}
    path.write_text(json.dumps(metrics | changed))
    assert any(sentence.startswith(words) for sentence in verdict(run))


def test_the_accuracy_with_test_time_augmentation_is_shown(make):
    run = make()
    assert "with augmentation" not in Page(report(run)).text
    path = run / "evaluations" / "test" / "metrics.json"
    tta = {"accuracy": 0.925, "correct": 555, "n": 600, "accuracy_interval": [0.901, 0.944], "views": 6}
    path.write_text(json.dumps({**json.loads(path.read_text()), "tta": tta}))
    text = "".join(Page(report(run)).text.split())
    assert "withaugmentation92.5%6viewsperimage;95%:90.1to94.4,n=600" in text


def test_the_verdict_names_classes_that_were_never_tested(make):
    labels = np.repeat([0, 1], 200)
    sentences = verdict(make(result=(labels, np.eye(3)[labels] * 0.9 + 0.1 / 3)))
    assert [sentence for sentence in sentences if "ship" in sentence] == [
        "Never tested, because no test image shows them: ship."
    ]
    labels = np.arange(600) % 3
    sentences = verdict(make(result=(labels, np.eye(3)[labels] * 0.9 + 0.1 / 3)))
    assert not any("Never tested" in sentence for sentence in sentences)


def test_the_sentences_of_the_verdict(make):
    labels = np.repeat([0, 1, 2], 200)
    guess = labels.copy()
    guess[:30] = 1  # 30 cats taken for dogs
    guess[200:210] = 0
    guess[400:405] = 0
    probabilities = np.eye(3)[guess] * 0.9 + 0.1 / 3
    sentences = verdict(make(result=(labels, probabilities), uses=3))
    assert sentences == [
        "92.5 % of 600 test images are classified correctly (95 %: 90.1 to 94.3). "
        "Data: official CIFAR-10 (checksums match).",
        "Most often confused: cat and dog (cat taken for dog 30 times, dog for cat 10 times): 88.9 % of all mistakes.",
        "Weakest class: cat. 85.0 % of its 200 images are recognised (95 %: 79.4 to 89.3).",
        "Neither over- nor under-confident, as far as 600 images can show: mean confidence 93.3 %, accuracy 92.5 %; "
        "expected calibration error 0.8 points, where a perfectly calibrated model shows 0.8 (up to 2.0).",
        "No sign of over-fitting: training accuracy 74.5 % (on augmented images, which are harder), "
        "validation accuracy 72.5 %.",
        "The test set was scored 3 times for this run: if earlier scores influenced your choices, this accuracy is too "
        "optimistic.",
        "Next, train longer, because validation accuracy was still rising: onsight train cifar10 --epochs 8",
    ]


@pytest.mark.parametrize(
    ("accuracy", "sure", "words"),
    [(0.8, 0.95, "Over-confident"), (0.8, 0.6, "Under-confident"), (0.8, 0.8, "Neither over- nor under-confident:"),
     (1.0, 0.999, "No mistakes.")],
)  # fmt: skip
def test_confidence(make, accuracy, sure, words):
    classes = ("cat", "dog", "ship")
    sentences = verdict(make(result=predicted(classes, accuracy, sure)))
    assert sum(sentence.startswith(words) for sentence in sentences) == 1


def answers(*classes):
    """Return labels and probabilities: for each class, how many of its images are right, and how many wrong."""
    labels = np.concatenate([[i] * (right + wrong) for i, (right, wrong) in enumerate(classes)]).astype(int)
    guess = np.concatenate([[i] * right + [(i + 1) % 3] * wrong for i, (right, wrong) in enumerate(classes)])
    return labels, np.eye(3)[guess.astype(int)] * 0.7 + 0.1


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (answers((260, 0), (0, 240), (1, 9)), "No better than always answering cat (51.0 %)."),
        (answers((0, 260), (0, 240), (0, 10)), "No better than always answering cat (51.0 %)."),  # worse, even
        (answers((13, 2), (12, 3), (0, 0)), "Too few images to say: the accuracy lies between 65.3 % and 94.4 %."),
        (answers((6, 4), (2, 6), (0, 0)), "Too few images to say whether the model is better than always answering cat "
         "(55.6 %): the accuracy lies between 21.5 % and 69.2 %."),
        (answers((5, 0), (4, 0), (0, 0)), "Too few images to say: the accuracy lies between 66.4 % and 100.0 %."),
        (answers((9, 0), (0, 0), (0, 0)), "Never tested, because no test image shows them: dog, ship."),
    ],
)  # fmt: skip
def test_an_accuracy_that_shows_little_is_doubted(make, result, words):
    folder = make(result=result)
    assert words in verdict(folder)
    assert words in Page(report(folder)).text.replace("\u00a0", " ")


def test_an_accuracy_that_shows_enough_is_not_doubted(make):
    said = " ".join(verdict(make(result=answers((20, 0), (20, 0), (20, 0)))))
    assert "No better" not in said
    assert "Too few" not in said
    assert "Never tested" not in said


def test_many_classes_that_were_never_tested_are_counted(make):
    classes = [f"class {i}" for i in range(9)]
    said = verdict(make(classes=classes, result=(np.arange(300) % 2, np.eye(9)[np.arange(300) % 2])))
    assert (
        "Never tested, because no test image shows them: class 2, class 3, class 4, class 5, class 6 and 2 more."
        in (said)
    )


def test_the_next_step_of_a_model_that_guesses(make):
    said = verdict(make(result=answers((260, 0), (0, 240), (1, 9))))[-1]
    assert said == "Next, look for the reason in the images: onsight check cifar10"


def test_calibrated_on_average_only(make):
    """One half is over-confident and one under-confident: the means agree, but the calibration error is large."""
    labels = np.zeros(2000, int)
    sure = np.where(np.arange(2000) < 1000, 0.9, 0.6)
    right = np.r_[np.arange(1000) < 750, np.arange(1000) < 750]
    probabilities = np.stack([np.where(right, sure, 1 - sure), np.where(right, 1 - sure, sure)], axis=1)
    assert any(
        line.startswith("Calibrated on average, but not at every confidence")
        for line in verdict(make(classes=("a", "b"), result=(labels, probabilities)))
    )


@pytest.mark.parametrize(
    ("training", "words"), [(0.02, "No sign of"), (0.06, "Somewhat"), (0.15, "Over-fitted:"), (-0.1, "No sign of")]
)
def test_over_fitting(make, training, words):
    sentences = verdict(make("trained", history=epochs(4, training=training)))
    assert sum(sentence.startswith(words) for sentence in sentences) == 1


def test_over_fitting_is_judged_in_the_epoch_whose_weights_were_kept(make):
    rows = epochs(4, training=0.01)
    rows[3] |= {"accuracy": 0.99, "val_loss": 3.0}
    kept = " ".join(verdict(make("trained", history=rows, spec={"patience": 3})))
    last = " ".join(verdict(make("trained", history=rows)))
    assert "No sign of over-fitting" in kept
    assert "Over-fitted: training accuracy 99.0 %" in last
    assert "Validation loss has risen since epoch 3: --patience 5 would keep the weights of that epoch." in last
    assert "has risen" not in kept


def test_probabilities_that_were_not_calibrated(make):
    """Nothing was held out: the verdict and the report say so, and no temperature was fitted on validation images."""
    said = "The probabilities are not calibrated: no validation images."
    folder = make(spec={"validation": 0}, history=epochs(4, validated=False))
    assert said not in verdict(folder)  # the data set has validation images of its own
    record = json.loads((folder / "dataset.json").read_text())
    record["counts"]["validation"] = {"cat": 0, "dog": 0, "ship": 0}
    (folder / "dataset.json").write_text(json.dumps(record))
    model = json.loads((folder / "model" / "model.json").read_text())
    (folder / "model" / "model.json").write_text(json.dumps(model | {"temperature": 0.7}))
    assert said in verdict(folder)
    classes = ("cat", "dog", "ship")
    labels, probabilities = predicted(classes)
    names = [str(number) for number in range(len(labels))]
    write_predictions(folder / "evaluations" / "test" / "predictions.csv", names, labels, probabilities, classes)
    source = report(folder).read_text()
    assert said in source[source.index("<h2>Calibration</h2>") :]
    assert "before temperature scaling (temperature 0.700)" in source
    heads = epochs(4, validated=False)
    heads[-1] |= {"out_of_fold_accuracy": 0.9, "out_of_fold_n": 300}
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in heads))
    assert said not in verdict(folder)


def test_what_was_left_out_and_the_accuracy_without_copies_follow_the_accuracy(make):
    folder = make()
    path = folder / "evaluations" / "test" / "metrics.json"
    metrics = json.loads(path.read_text())
    low = {"accuracy": 0.79, "correct": 782, "n": 990, "accuracy_interval": [0.763, 0.814]}
    path.write_text(
        json.dumps(metrics | {"notes": ["9 left out."], "without_copies": low | {"copies": 10, "near": True}})
    )
    assert verdict(folder)[1:3] == [
        "Without the 10 images that have a copy or near-duplicate among those that the model was trained or judged on: "
        "79.0 % (95 %: 76.3 to 81.4).",
        "9 left out.",
    ]


def test_over_fitting_cannot_be_detected_without_validation(make):
    sentences = verdict(make("trained", history=epochs(4, validated=False), spec={"validation": 0}))
    assert "No validation images were held out: over-fitting cannot be detected." in sentences


@pytest.mark.parametrize(
    ("spec", "training", "command"),
    [
        ({"preset": "quick"}, 0.0, "onsight train cifar10 --preset balanced"),
        ({"augmentation": "none"}, 0.2, "onsight train cifar10 --epochs 4 --augmentation shift"),
        ({"optimizer": "sgd", "weight_decay": 0.0}, 0.2, "onsight train cifar10 --epochs 4 --weight-decay 0.0005"),
        ({"optimizer": "adam", "weight_decay": 0.0}, 0.2, "onsight predict runs/cifar10-cnn-0001 image.jpg"),
        ({"freeze": "all", "augmentation": "none"}, 0.2, "onsight predict runs/cifar10-cnn-0001 image.jpg"),
        ({}, 0.2, "onsight predict runs/cifar10-cnn-0001 image.jpg"),
        ({}, 0.01, "onsight train cifar10 --epochs 8"),
    ],
)
def test_next_step(make, spec, training, command):
    assert verdict(make(spec=spec, asked={"epochs": 4}, history=epochs(4, training=training)))[-1].endswith(
        f": {command}"
    )


def test_the_next_step_replaces_a_time_budget_by_epochs(make):
    said = verdict(make(asked={"time_budget": "5m"}, history=epochs(4, training=0.01)))[-1]
    assert said.endswith(": onsight train cifar10 --epochs 8")


def test_evaluations_of_earlier_weights_are_ignored(make):
    """A finished run can be trained further after its evaluation."""
    folder = make()
    for path, weights in (("evaluations/test/metrics.json", "before"), ("model/model.json", "after")):
        value = json.loads((folder / path).read_text())
        (folder / path).write_text(json.dumps(value | {"weights_sha256": weights}))
    assert verdict(folder)[-1] == "Next, evaluate it on the test set: onsight evaluate runs/cifar10-cnn-0001"
    assert 'id="confusion"' not in report(folder).read_text("utf-8")
    with pytest.raises(RunError, match="have not been evaluated on the test set"):
        label_runs([Run(folder), Run(make(name="cifar10-cnn-0002"))])


def test_the_command_that_repeats_a_run(make):
    asked = {
        "data": "my photos",
        "batch_size": 64,
        "allow_tiny": True,
        "seed": 0,
        "model": None,
        "label_smoothing": 0.1,
    }
    folder = make(asked=asked)
    assert (
        train_command(Run(folder))
        == "onsight train 'my photos' --batch-size 64 --allow-tiny --seed 0 --label-smoothing 0.1"
    )
    less = train_command(Run(folder), allow_tiny=False, seed=None)
    assert less == "onsight train 'my photos' --batch-size 64 --label-smoothing 0.1"
    left_out = train_command(Run(folder), exclude=["sea lion", "cat, tame"], classes=None)
    assert left_out.endswith("""--exclude 'sea lion,"cat, tame"'""")


def test_other_evaluations_follow_the_first(make):
    folder = make()
    classes = ("cat", "dog", "ship")
    add_evaluation(folder, "attic", classes, "my photos", predicted(classes, 0.5, n=200), drawn=["confusion"])
    page = Page(report(folder))
    assert "Also evaluated: attic" in page.text
    assert page.text.index("80.0 % of 1,000") < page.text.index("Also evaluated")
    assert page.source.count('<table class="matrix') == 2
    assert verdict(folder, "attic")[0].startswith("50.0 % of 200 images in 'attic' are classified correctly")
    with pytest.raises(RunError, match=r"no evaluation 'cellar'\. It has: test, attic"):
        verdict(folder, "cellar")


def test_many_classes_and_two_classes(make):
    many = [f"class {i}" for i in range(100)]
    page = Page(report(make(classes=many)))
    assert "The other 75 classes" in page.text
    assert all(name in page.text for name in many)
    page = Page(report(make(classes=["ant", "bee"])))
    assert "ROC area" in page.text
    assert "probability that an image of 'bee' ranks above one of the other class" in page.text
    assert "top-" not in page.text


def test_classes_without_images(make):
    labels, probabilities = np.zeros(10, int), np.tile([0.6, 0.3, 0.1], (10, 1))
    folder = make(result=(labels, probabilities))
    assert Page(report(folder)).text.count("ship") == 5  # verdict, matrix (twice), class table, counts
    assert "No mistakes." in verdict(folder)


def test_a_resumed_and_diverged_history(make):
    rows = [*epochs(3), {"event": "epoch", "epoch": 3, "loss": float("nan"), "accuracy": 0.1, "learning_rate": 0.1}]
    folder = make("training", history=rows)
    assert "3 of 4 epochs" in verdict(folder)[0]
    assert "65.0 %" in verdict(folder)[0]  # of epoch 2; the last line of epoch 3 has no validation accuracy
    Page(report(folder))


def test_a_report_is_written_again(make):
    folder = make("trained")
    before = report(folder).read_text()
    add_evaluation(folder, "test", ("cat", "dog", "ship"), OFFICIAL)
    assert report(Run(folder)).read_text() != before
    assert not list(folder.glob(".*"))


def test_damaged_runs_are_refused(make, tmp_path):
    with pytest.raises(RunError, match="not a run"):
        report(tmp_path)
    folder = make()
    (folder / "evaluations" / "test" / "metrics.json").write_text('{"n": 1')
    with pytest.raises(RunError, match="damaged"):
        report(folder)
    (folder / "evaluations" / "test" / "metrics.json").write_text('{"n": 1}')
    with pytest.raises(RunError, match=r"damaged.*onsight evaluate runs/cifar10-cnn-0001"):
        verdict(folder)
    record = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps(record | {"schema": 99}))
    with pytest.raises(RunError, match="newer"):
        report(folder)
