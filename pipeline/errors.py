"""The one exception that the command line shows without a traceback."""

from __future__ import annotations


class PipelineError(Exception):
    """A problem that the user can mend; the message names the place and the remedy.

    Attributes:
        exit_status: What the command line ends with.
    """

    exit_status = 1
