"""The ways in which a command can end before it is done, each with the exit code that the shell sees."""


class UserError(Exception):
    """Something the user asked for cannot be done; the message says what, where and what was expected.

    `problems` holds every mistake found, one line each, so that one attempt shows them all.
    """

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        # What a user typed may hold anything, line ends too.
        self.problems = tuple(" ".join(problem.splitlines()) for problem in problems)
        super().__init__("\n".join(self.problems))


class RunError(Exception):
    """A run that was set up correctly failed on its way (an environment raised, a number became NaN)."""

    exit_code = 1


class WorkersLost(RunError):
    """Worker processes died more often than they may. What was learned until then is sound, and can be kept."""


class Preempted(Exception):
    """The run was asked to end by SIGTERM or SIGHUP and has: its checkpoint is written, and it can be resumed."""

    exit_code = 143  # 128 + 15, what a shell reports for a process that SIGTERM ended
