"""The `onsight` command, also `python -m onsight`: runs one command, and turns errors into a line and an exit code."""

from __future__ import annotations

import io
import os
import sys
from typing import NoReturn

from onsight.cli.stopping import CODE, Stopping
from onsight.core.errors import OnsightError, SpecError
from onsight.core.text import printable


def main() -> None:
    """Import the modules that ONSIGHT_IMPORT names, then run the command line and exit with its code.

    0: success; 1: training failed, the disk is full or failed, or `check --strict` found errors; 2: the user can fix
    it; 3: the outputs of an exported model differ from its source; 129, 130 or 143: stopped by a signal; 141: the
    reader of the output has closed the pipe.
    """
    stopping = Stopping(sys.argv[1:])
    stopping.listen()
    try:
        run()
    except KeyboardInterrupt:
        stopping.say()
        end(CODE)
    finally:
        stopping.ignore()


def run() -> None:
    """Do what `main` says, except for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name may contain bytes that are not text
            stream.reconfigure(errors="backslashreplace")
    try:
        if os.environ.get("ONSIGHT_IMPORT"):
            from onsight.models.custom import import_own

            import_own()
        from onsight.cli.app import app

        app(sys.argv[1:])
        sys.stdout.flush()
    except OnsightError as error:
        print(f"onsight: {printable(str(error))}", file=sys.stderr)  # noqa: T201
        end(error.exit_code)
    except ModuleNotFoundError as error:
        from onsight.core.extras import PACKAGES, sentence

        package = str(error.name).partition(".")[0]
        if package not in PACKAGES:
            raise
        print(f"onsight: {sentence(package)}", file=sys.stderr)  # noqa: T201
        end(SpecError.exit_code)
    except BrokenPipeError:  # the reader closed the pipe: `onsight predict … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        from onsight.core.files import is_disk_full, is_storage_failure, is_user_fixable

        if is_user_fixable(error):
            where = printable(os.fsdecode(error.filename))
            print(f"onsight: '{where}' cannot be read or written: {error.strerror}.", file=sys.stderr)  # noqa: T201
            sys.exit(2)
        if is_storage_failure(error):
            where = printable(os.fsdecode(error.filename))
            print(  # noqa: T201
                f"onsight: The storage of '{where}' failed: {error.strerror}. What was saved before is not lost. Check "
                "the disk or the network folder, then run the command again.",
                file=sys.stderr,
            )
            sys.exit(1)
        if not is_disk_full(error):
            raise
        print(f"onsight: The disk is full: {error.filename or error}. Make room and try again.", file=sys.stderr)  # noqa: T201
        sys.exit(1)


def end(code: int) -> NoReturn:
    """Exit with this code; if the process trains together with others, without waiting long for them."""
    if "jax" in sys.modules:
        from onsight.training.distributed import leave

        leave(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
