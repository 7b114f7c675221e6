"""`tune`: the command that searches settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from onsight.cli.app import Quiet
from onsight.cli.flags import Fields, Flag
from onsight.cli.output import hint, say
from onsight.cli.training import ELSEWHERE, with_data
from onsight.core.errors import SpecError
from onsight.core.files import argument
from onsight.core.text import plain
from onsight.display.reporters import make_reporter
from onsight.spec import TrainSpec


def tune(
    data: str | None = None,
    /,
    *,
    spec: Annotated[TrainSpec | None, Fields(TrainSpec, ELSEWHERE | {"time_budget"})] = None,
    trials: int | None = None,
    time_budget: str | None = None,
    search: Annotated[list[str] | None, Flag(several=True)] = None,
    study: Path | None = None,
    resume: Path | None = None,
    find_learning_rate: bool = False,
    take: Path | None = None,
    then: Literal["evaluate"] | None = None,
    quiet: Quiet = False,
) -> None:
    """Search for better settings than the preset's, and say whether they are; the test set is not used.

    Parameters
    ----------
    data
        a named data set (`onsight datasets`), or a folder, zip or CSV of images (default: cifar10)
    spec
        the training options that all trials share
    trials
        how many settings to try (default: 30, or as many as fit into --time-budget)
    time_budget
        finish within 90s, 5m or 1.5h
    search
        what to try: learning_rate=0.03..0.5 optimizer=muon,sgd (default: learning rate, augmentation, label smoothing,
        and weight decay where the optimizer has one)
    study
        the folder of the study (default: tunes/ and the name of the data set)
    resume
        go on with this study: after a kill, for more trials, or as one more process
    find_learning_rate
        search around the learning rate that a range test finds
    take
        copy the winner of this study to runs/, and do nothing else
    then
        evaluate: copy the winner to runs/ and score it on the test images
    """
    from onsight.tuning import tune as tuning

    if take is not None:
        if data is not None or spec is not None or resume is not None:
            raise SpecError("--take copies the winner of a study that is there; leave the data and the options out.")
        say(str(tuning.open_study(take).take().folder))
        return
    show = make_reporter(quiet)
    given: dict[str, Any] = {"trials": trials, "time_budget": time_budget, "search": search, "study": study}
    asked = with_data(spec, data) if resume is None or data is not None or spec is not None else None
    found = tuning.tune(asked, **given, resume=resume, find_learning_rate=find_learning_rate, reporter=show)
    for sentence in found.sentences:
        say(plain(sentence))
    if found.command:
        say(f"The winner again: {found.command}")
    say(f"Page: {found.page}")
    if then == "evaluate":
        evaluate_winner(found.take(), quiet)
    elif found.run and not quiet:
        hint(f"Next: onsight tune --take {argument(found.folder)}, then: onsight evaluate")


def evaluate_winner(run: Any, quiet: bool) -> None:
    """Score the winner on the test images, once it is in runs/."""
    from onsight.evaluation.evaluate import evaluate
    from onsight.reporting.verdict import verdict

    result = evaluate(run, reporter=make_reporter(quiet))
    for sentence in verdict(run, result.folder.name):
        say(sentence)
    say(f"Report: {run.report}")
