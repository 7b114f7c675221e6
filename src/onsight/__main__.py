"""The `onsight` command, also `python -m onsight`: runs one verb, and turns its errors into a line and an exit code."""

from __future__ import annotations

import io
import os
import sys

from .errors import OnsightError, printable


def main() -> None:
    """Run the command line; exit with 0, 1 (training failed), 2 (the user can mend it), 130 or 143 (stopped).

    Before it the modules that ONSIGHT_IMPORT names are imported.
    """
    from .cli import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name may hold bytes that are no text
            stream.reconfigure(errors="backslashreplace")
    try:
        if os.environ.get("ONSIGHT_IMPORT"):
            from .models.own import import_own

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
        from .files import is_disk_full

        if not is_disk_full(error):
            raise
        print(f"onsight: The disk is full: {error.filename or error}. Make room and try again.", file=sys.stderr)  # noqa: T201
        sys.exit(1)


if __name__ == "__main__":
    main()
