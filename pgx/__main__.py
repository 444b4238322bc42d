"""`python -m pgx` is `pgx`."""

import sys
from typing import NoReturn

from pgx.cli.process_exit import INTERRUPTED, keep_exit_code, report_sigterm


def run_process() -> NoReturn:
    """Run the command line. A signal exits with its own exit code and without a traceback, at any time."""
    report_sigterm()
    code: int | str | None = INTERRUPTED
    try:
        from pgx.cli.main import main  # here, so that Ctrl-C during the imports is handled

        main()
    except SystemExit as ended:
        code = ended.code
    except KeyboardInterrupt:
        print("pgx: interrupted", file=sys.stderr)
    keep_exit_code(code)
    sys.exit(code)


if __name__ == "__main__":
    run_process()
