"""Threads that compute: those of OpenMP must not outlive their work, and one for each core waits for no other."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Item = TypeVar("Item")
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


def map_on_cores(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> list[Result]:
    """Do work for each item, on a CPU in threads that compute side by side on a core each, and end with the call.

    torch otherwise shares every operation among the cores, which wait for each other at its end, the longer where other
    processes run, too.

    Args:
        work: Called with each item.
        items: The items.
        workers: Number of threads; with fewer than two the caller's does it all.

    Returns:
        The results in the order of the items.
    """
    if workers < 2:
        return [work(item) for item in items]
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)  # which a thread's own number replaced
