"""Everything vitreous raises on purpose.

    VitreousError
    ├── ConfigError      a setting is wrong                        exit code 2
    ├── ShapeError       a tensor is not of the shape asked for    exit code 2
    ├── InputError       an image or data file cannot be used      exit code 3
    ├── OutputError      a result cannot be written                exit code 4
    ├── CheckpointError  weights and architecture do not fit       exit code 5
    ├── CaptureError     attention was not seen, or not proved     exit code 5
    ├── MemoryLimitError a result would not fit in memory          exit code 5
    ├── NumericError     a number became NaN or infinite           exit code 6
    └── WorkerError      a worker process was lost                 exit code 7

A message says what was expected, what came, and what to do next, in that order and in at most three lines.
"""

from __future__ import annotations


class VitreousError(Exception):
    """The root: catch this to catch everything that vitreous raises on purpose."""

    exit_code = 1


class ConfigError(VitreousError, ValueError):
    """A setting is wrong: named with its value, what is allowed, and the nearest spelling."""

    exit_code = 2


class ShapeError(VitreousError, ValueError):
    """A tensor is not of the shape that the docstring asks for."""

    exit_code = 2


class InputError(VitreousError):
    """An image, a data set or a folder cannot be read: named with the cause."""

    exit_code = 3


class OutputError(VitreousError):
    """A file or folder cannot be written: found before the work starts."""

    exit_code = 4


class CheckpointError(VitreousError):
    """Weights cannot be read, or do not fit the architecture they claim."""

    exit_code = 5


class CaptureError(VitreousError):
    """Attention was not seen, was seen in a form that cannot be told apart, or failed its proof."""

    exit_code = 5


class MemoryLimitError(VitreousError):
    """A result would need more memory than allowed: the message has both numbers."""

    exit_code = 5


class NumericError(VitreousError):
    """A number became NaN or infinite: named with the layer or step where it was first seen.

    Attributes:
        image: which image of the batch it was seen in first, where that is known.
    """

    exit_code = 6

    def __init__(self, message: str, *, image: int | None = None) -> None:
        super().__init__(message)
        self.image = image


class WorkerError(VitreousError):
    """A process that took part in the work was lost: named with the cause."""

    exit_code = 7
