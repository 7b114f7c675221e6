"""TensorBoard logs, if the `tensorboard` package is installed. TensorFlow is neither needed nor imported."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

TAGS = {
    "loss": "loss/train",
    "val_loss": "loss/validation",
    "accuracy": "accuracy/train",
    "val_accuracy": "accuracy/validation",
    "learning_rate": "learning_rate",
    "images_per_second": "images_per_second",
}


class EventLog:
    """Write scalars of each epoch for `tensorboard --logdir`; without the package or a folder, do nothing."""

    def __init__(self, folder: Path | None, done: int = 0) -> None:
        """Open a new file in `folder`. It invalidates the entries of older files for epochs after `done`."""
        self.writer: Any = None
        if folder is None or not find_spec("tensorboard"):
            return
        # If this module exists, tensorboard does not import TensorFlow, which would take seconds and 0.7 GB.
        sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.writer = EventFileWriter(str(folder))
        if done:
            log = SessionLog(status=SessionLog.START)
            self.writer.add_event(Event(wall_time=time.time(), step=done + 1, session_log=log))

    def write(self, row: Mapping[str, Any]) -> None:
        """Log one epoch's line of the history, and flush it to the disk."""
        if self.writer is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=row[key]) for key, tag in TAGS.items() if key in row]
        event = Event(wall_time=time.time(), step=row["epoch"], summary=Summary(value=values))
        self.writer.add_event(event)
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()
