"""The errors of wsflow: each is a sentence with its remedy, and the CLI turns each into an exit code.

References
----------
Usage errors (2) are click's own; ``ValueError`` raised by an estimator is a usage error too.
"""


class WsflowError(Exception):
    """What every error of wsflow has in common: the exit code that the command line returns."""

    exit_code = 2


class InvalidInputError(WsflowError, ValueError):
    """A file or an array that is not what it should be (exit code 3)."""

    exit_code = 3


class NumericalError(WsflowError, ArithmeticError):
    """A computation that left the finite numbers (exit code 4)."""

    exit_code = 4


class OutputError(WsflowError, OSError):
    """A result that could not be written (exit code 5)."""

    exit_code = 5
