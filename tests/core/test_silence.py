import logging
import os
import sys
import warnings

import pytest

from onsight.core.silence import LOGGERS, without_logs, without_python_output, without_stderr


def test_without_stderr_drops_what_is_written_to_the_descriptor(capfd):
    def fail():
        os.write(2, b"from C++\n")
        os.write(1, b"an answer\n")
        raise ValueError("an error")

    with pytest.raises(ValueError, match="an error"), without_stderr():
        fail()
    os.write(2, b"later\n")
    assert capfd.readouterr() == ("an answer\n", "later\n")


def test_without_python_output_drops_what_python_writes_to_both_streams(capfd):
    with without_python_output():
        sys.stdout.write("a greeting\n")
        sys.stderr.write("50 %\n")
        os.write(2, b"from C++\n")
    sys.stdout.write("later\n")
    assert capfd.readouterr() == ("later\n", "from C++\n")


def test_without_logs_drops_warnings_and_messages_below_errors(caplog):
    levels = [logging.getLogger(name).level for name in LOGGERS]
    with without_logs():
        warnings.warn("old", stacklevel=1)  # an error in this test suite, unless it is dropped
        logging.getLogger("tf2onnx").warning("slow")
        logging.getLogger("tf2onnx").error("failed")
    assert [record.getMessage() for record in caplog.records] == ["failed"]
    assert [logging.getLogger(name).level for name in LOGGERS] == levels
