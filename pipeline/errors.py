"""The one exception that the command line shows without a traceback."""

from __future__ import annotations


class PipelineError(Exception):
    """A problem that the user can fix; the message names the place and the remedy.

    Attributes:
        exit_status: Exit status of the command line.
    """

    exit_status = 1
