"""Where on a CPU torch computes."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_temporary_thread(work: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let a function compute in a thread that ends with it, and wait for it.

    OpenMP, which torch computes with on a CPU, keeps helpers for every thread that ever computed, for as long as that
    thread lives. Where those of two threads are more than the cores, each operation puts its helpers to sleep and wakes
    them again: a model that one thread loaded then answers half as fast in another.

    Args:
        work: The function.

    Returns:
        The function, with the same arguments, result and errors.
    """

    @functools.wraps(work)
    def elsewhere(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        outcome: Future[Result] = Future()

        def run() -> None:
            try:
                outcome.set_result(work(*args, **kwargs))
            except BaseException as error:
                outcome.set_exception(error)

        # Its own thread and no pool's, whose threads live on; a daemon, so that Ctrl-C ends the wait and the process.
        temporary = threading.Thread(target=run, name=f"{work.__name__}-temporary", daemon=True)
        temporary.start()
        found = outcome.result()
        temporary.join()
        return found

    return elsewhere
