"""Exceptions that end a command, with their exit codes."""


class UserError(Exception):
    """Invalid request of the user; the message says what, where and what was expected.

    `problems` holds every mistake found, one line each, so that one attempt shows them all.
    """

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        # What a user typed may hold anything, line ends too.
        self.problems = tuple(" ".join(problem.splitlines()) for problem in problems)
        super().__init__("\n".join(self.problems))


class ConfigError(UserError):
    """Invalid request to the Python API; `problems` has one line for each problem."""


class RunError(Exception):
    """A run that was set up correctly failed on its way (an environment raised, a number became NaN)."""

    exit_code = 1


class UserCodeError(RunError):
    """Code of the user, a callback or a logger, raised an exception, which is the cause of this one."""


class WorkersLost(RunError):
    """Worker processes crashed more often than allowed. The parameters learned before are valid."""


class Preempted(Exception):
    """The run ended on SIGTERM or SIGHUP; its checkpoint is written, and it can be resumed."""

    exit_code = 143  # 128 + 15, what a shell reports for a process that SIGTERM ended
