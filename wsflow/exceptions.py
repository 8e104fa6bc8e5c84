"""The errors and warnings of wsflow: each is a sentence with its remedy; the CLI turns errors into exit codes.

A wrong use has the exit code 2: click's own errors, and every other ``ValueError``, such as a parameter of an
estimator that has a wrong value.
"""


class WsflowError(Exception):
    """What every error of wsflow has in common: the exit code that the command line returns."""

    exit_code = 2


class InvalidInputError(WsflowError, ValueError):
    """A file or an array that is not what it should be (exit code 3)."""

    exit_code = 3


class MemoryLimitError(InvalidInputError):
    """A request that would take more memory than there is, refused before it is tried (exit code 2)."""

    exit_code = 2


class NumericalError(WsflowError, ArithmeticError):
    """A computation that left the finite numbers (exit code 4)."""

    exit_code = 4


class OutputError(WsflowError, OSError):
    """A result that could not be written (exit code 5)."""

    exit_code = 5


class WsflowWarning(UserWarning):
    """What every warning of wsflow has in common: something was done that may not be what is wanted."""


class MissingArchitectureWarning(WsflowWarning):
    """An estimator was fitted to an array without an architecture, so that networks have no symmetries to remove."""


class FewRunsWarning(WsflowWarning):
    """A distribution was fitted to so few training runs that its samples will hardly be more than copies."""


class UnequalSpreadsWarning(WsflowWarning):
    """A flow was fitted to neurons of which some vary so little that its error is larger."""


class IncomparableScoresWarning(WsflowWarning):
    """Log-densities with respect to different volumes are about to be compared."""
