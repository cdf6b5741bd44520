"""Keeping OpenMP's worker threads from outliving the work they were created for."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_temporary_thread(work: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Make a function run in a thread that ends with it, and wait for the result.

    OpenMP, which torch uses on a CPU, keeps a pool of workers for every thread that has computed, until that thread
    ends. If two pools together exceed the number of cores, each operation puts its workers to sleep and wakes them
    again: a model loaded by one thread then generates half as fast in another.

    Args:
        work: The function to wrap.

    Returns:
        The wrapped function, with the same arguments, result and errors.
    """

    @functools.wraps(work)
    def elsewhere(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        outcome: Future[Result] = Future()

        def run() -> None:
            try:
                outcome.set_result(work(*args, **kwargs))
            except BaseException as error:
                outcome.set_exception(error)

        # Not a thread pool, whose threads live on. A daemon, so that Ctrl-C ends the wait and the process.
        temporary = threading.Thread(target=run, name=f"{work.__name__}-temporary", daemon=True)
        temporary.start()
        found = outcome.result()
        temporary.join()
        return found

    return elsewhere
