"""The model card holds the facts of a run, and nothing that a run names can format it or leave its table."""

import json
import shutil

import pytest

from onsight.reporting.model_card import model_card
from onsight.reporting.report import report
from onsight.runs.run import Run

HOSTILE = ["<script>alert(1)</script>", "a|b\nc", "`x`", "[click](https://evil.example)"]


@pytest.fixture
def run(toy_run, tmp_path):
    """Return a copy of an evaluated run."""
    return Run(shutil.copytree(toy_run.folder, tmp_path / "runs" / "toy-1"))


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def front_matter(card):
    """Return the values of the block at the beginning of a card: each is JSON, a subset of YAML."""
    block = card.split("---\n")[1]
    return {key: json.loads(value) for key, _, value in (line.partition(": ") for line in block.splitlines())}


def test_a_card_has_the_figures_of_the_run(run):
    metrics = json.loads((run.evaluation_folder() / "metrics.json").read_text())
    card = model_card(run)
    for heading in ("What it is for", "Data", "Figures", "Weak spots", "Robustness", "Limits", "Licences",
                    "How to repeat it"):  # fmt: skip
        assert f"\n## {heading}\n" in card
    (result,) = front_matter(card)["model-index"][0]["results"]
    assert result["metrics"][0] == {"type": "accuracy", "value": round(metrics["accuracy"], 6)}
    assert f"| test | {metrics['n']:,} |" in card
    assert "(95 %: " in card
    assert metrics["weights_sha256"] in card
    assert "onsight train toy" in card
    assert "Apache-2.0, as Onsight, which drew them" in card
    assert str(run.folder.parent) not in card


def test_report_writes_the_card_of_a_trained_run_and_into_its_export(run):
    (run.folder / "export").mkdir(exist_ok=True)
    report(run)
    cards = [folder / "MODEL_CARD.md" for folder in (run.folder, run.folder / "export")]
    assert [card.read_text("utf-8") for card in cards] == [model_card(run)] * 2
    shutil.rmtree(run.model_folder)
    cards[0].unlink()
    report(Run(run.folder))
    assert not cards[0].exists()


def test_a_run_without_an_evaluation_says_so(run):
    shutil.rmtree(run.folder / "evaluations")
    card = model_card(Run(run.folder))
    assert "its accuracy is unknown" in card
    assert "model-index" not in front_matter(card)


def test_names_cannot_format_the_card(run):
    names = HOSTILE[: len(run.classes)]
    change(run.folder / "dataset.json", classes=names, provenance="---\n# <b>x</b> | y")
    path = run.evaluation_folder() / "metrics.json"
    rows = json.loads(path.read_text())["per_class"]
    change(
        path, data='x"\nlicense: mit', correct=0,
        per_class=[row | {"class": name} for row, name in zip(rows, names, strict=True)],
    )  # fmt: skip
    card = model_card(Run(run.folder))
    assert front_matter(card)["license"] == "unknown"
    body = card.split("---\n", 2)[2]
    assert "<script>" not in body.replace("\\<", "")
    assert "[click]" not in body
    for table in body.split("\n\n"):
        cells = [line.replace("\\|", "").count("|") for line in table.splitlines() if line.startswith("|")]
        assert len(set(cells)) <= 1


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"data": "photos"}, "Images: not recorded"),
        ({"weights": "imagenet", "model": "efficientnet_lite0"}, "(Apache-2.0)"),
        ({"weights": "imagenet", "model": "resnet50v2"}, "not recorded: ask Keras"),
        ({"weights": "old.h5"}, "weights from a file"),
    ],
)
def test_licences_are_said_as_far_as_they_are_known(run, spec, said):
    change(run.folder / "spec.json", spec=run.spec | spec)
    assert said in model_card(Run(run.folder))
