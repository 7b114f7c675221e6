"""The `onsight` command, also `python -m onsight`: runs one verb, and turns its errors into a line and an exit code."""

from __future__ import annotations

import io
import os
import sys

from onsight.core.errors import OnsightError
from onsight.core.text import printable


def main() -> None:
    """Run the command line; exit with a code that says how it ended.

    0: done; 1: training failed, the disk is full, or `check --strict` found something; 2: the user can mend it; 3: an
    export did not answer as its source; 130 or 143: stopped; 141: the reader of the output has gone.

    Before it the modules that ONSIGHT_IMPORT names are imported.
    """
    from onsight.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name may hold bytes that are no text
            stream.reconfigure(errors="backslashreplace")
    try:
        if os.environ.get("ONSIGHT_IMPORT"):
            from onsight.models.custom import import_own

            import_own()
        app(sys.argv[1:])
        sys.stdout.flush()
    except OnsightError as error:
        print(f"onsight: {printable(str(error))}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("onsight: stopped.", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has seen enough: `onsight predict … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        from onsight.core.files import is_disk_full, is_user_fixable

        if is_user_fixable(error):
            where = printable(os.fsdecode(error.filename))
            print(f"onsight: '{where}' cannot be read or written: {error.strerror}.", file=sys.stderr)  # noqa: T201
            sys.exit(2)
        if not is_disk_full(error):
            raise
        print(f"onsight: The disk is full: {error.filename or error}. Make room and try again.", file=sys.stderr)  # noqa: T201
        sys.exit(1)


if __name__ == "__main__":
    main()
