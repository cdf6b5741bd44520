"""What else a machine did while something was timed; does not import pytest."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import psutil

BUSY_SHARE = 0.10
"""Above this withheld share a machine counts as busy.

Background services of an idle machine take some per cent. One other busy process on a machine of two cores, the least
that anybody would call other work, takes a quarter.
"""
SAMPLE_PERIOD_S = 1.0
"""Time between samples, which catch processes that end or leave their parent; one costs some milliseconds."""
JUDGED_VARIABLE = "VERBOSITY_JUDGED_BY"
"""Environment variable that every process started by the test run inherits, also one that leaves its parent."""
_THROTTLING = (
    (Path("/sys/fs/cgroup/cpu.stat"), "throttled_usec", 1e-6),
    (Path("/sys/fs/cgroup/cpu/cpu.stat"), "throttled_time", 1e-9),
)


@dataclass(frozen=True)
class MachineUse:
    """Who used the processors in an interval.

    Attributes:
        wall_s: Length of the interval.
        cpu_count: Processors that the judged processes may use; all other figures are about these.
        own_cpu_s: CPU time of the judged processes: the test run, what it started, and their children.
        waited_s: How long threads of the judged processes were ready to run and had no processor.
        foreign_cpu_s: CPU time of everything else.
        steal_s: CPU time that the hypervisor gave to other virtual machines.
        throttled_s: How long the container was stopped because it had used up its quota.
        load_average: Of the last minute, at the end.
    """

    wall_s: float
    cpu_count: int
    own_cpu_s: float
    waited_s: float
    foreign_cpu_s: float
    steal_s: float
    throttled_s: float
    load_average: float

    @property
    def withheld_cpu_share(self) -> float:
        """Share of the CPU time wanted by the judged processes that demonstrably went to other work, 0 to 1.

        That is the CPU time of others, as far as the judged processes' threads waited meanwhile, and their part of
        the steal. What they burn, sleep, or lose to each other or to their own quota is not in it.
        """
        waited_s = max(0.0, self.waited_s - self.throttled_s)
        busy_s = self.own_cpu_s + self.foreign_cpu_s
        stolen_s = self.steal_s * self.own_cpu_s / busy_s if busy_s > 0 else 0.0
        withheld_s = min(self.foreign_cpu_s, waited_s) + stolen_s
        wanted_s = max(self.wall_s, self.own_cpu_s + withheld_s)
        return withheld_s / wanted_s if wanted_s > 0 else 0.0

    def measures(self) -> dict[str, float]:
        """The figures to record beside a time."""
        capacity_s = self.wall_s * self.cpu_count
        return {
            "withheld_cpu_share": self.withheld_cpu_share,
            "foreign_cpu_share": self.foreign_cpu_s / capacity_s if capacity_s > 0 else 0.0,
            "steal_cpu_share": self.steal_s / capacity_s if capacity_s > 0 else 0.0,
            "throttled_s": self.throttled_s,
            "load_average": self.load_average,
        }


def was_busy(measurements: Mapping[str, object]) -> bool:
    """Whether the recorded figures show that other work withheld the processors."""
    share = measurements.get("withheld_cpu_share")
    return isinstance(share, float) and BUSY_SHARE < share <= 1


def describe_use(measurements: Mapping[str, object]) -> str:
    """The recorded figures in words; empty without them."""
    figures = [measurements.get(name) for name in ("withheld_cpu_share", "foreign_cpu_share", "steal_cpu_share")]
    load, throttled_s = measurements.get("load_average"), measurements.get("throttled_s")
    if not all(isinstance(figure, float) for figure in (*figures, load, throttled_s)):
        return ""
    withheld, foreign, steal = (f"{figure:.0%}" for figure in figures)
    state = "busy" if was_busy(measurements) else "not busy"
    return (
        f"the machine was {state}: other work withheld {withheld} of the CPU time that the judged processes wanted "
        f"(busy above {BUSY_SHARE:.0%}) and used {foreign} of the machine; steal {steal}, "
        f"throttled {throttled_s:.1f} s, load {load:.1f}"
    )


@dataclass(frozen=True)
class Sample:
    """The counters of one moment, in seconds.

    Attributes:
        time_s: Monotonic time.
        busy_s: CPU time of all processes on the usable processors.
        steal_s: Steal on them.
        throttled_s: Throttled time of the container.
        own: By process id, each judged process' own CPU time and that of its reaped children, and its parent's id.
        waits: By thread id, how long each thread of the judged processes has waited for a processor.
    """

    time_s: float
    busy_s: float
    steal_s: float
    throttled_s: float
    own: Mapping[int, tuple[float, int]] = field(default_factory=dict)
    waits: Mapping[int, float] = field(default_factory=dict)


class MachineWatch:
    """Context manager that observes the machine; ``use`` holds what it found."""

    use: MachineUse

    def __init__(self, sample: Callable[[], Sample] | None = None, period_s: float = SAMPLE_PERIOD_S) -> None:
        """Observe this test run's processes by default; ``sample`` replaces the reading of the counters."""
        self._period_s = period_s
        self._sample = sample or Reader(judged_root()).sample
        self._over = threading.Event()
        self._waits: dict[int, float] = {}
        self._orphans: dict[int, float] = {}
        self._last: dict[int, tuple[float, int]] = {}

    def __enter__(self) -> Self:
        self._first = self.observe()
        self._waits_before = dict(self._waits)
        self._thread = threading.Thread(target=self._watch, name="machine watch", daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(self._period_s):
            self.observe()

    def observe(self) -> Sample:
        """Take one sample."""
        found = self._sample()
        self._waits.update(found.waits)
        for process, (cpu_s, parent) in self._last.items():
            # A parent that waits for its child takes over the child's CPU time; that of an orphan would be lost.
            if process not in found.own and parent not in self._last:
                self._orphans[process] = cpu_s
        self._last = dict(found.own)
        return found

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        first, last = self._first, self.observe()
        own_s = sum(cpu_s for cpu_s, _ in last.own.values()) + sum(self._orphans.values())
        own_s = max(0.0, own_s - sum(cpu_s for cpu_s, _ in first.own.values()))
        waited_s = sum(max(0.0, wait - self._waits_before.get(thread, 0.0)) for thread, wait in self._waits.items())
        self.use = MachineUse(
            wall_s=last.time_s - first.time_s,
            cpu_count=len(_usable_processors()),
            own_cpu_s=own_s,
            waited_s=waited_s,
            foreign_cpu_s=max(0.0, last.busy_s - first.busy_s - own_s),
            steal_s=max(0.0, last.steal_s - first.steal_s),
            throttled_s=max(0.0, last.throttled_s - first.throttled_s),
            load_average=os.getloadavg()[0],
        )


def judged_root() -> int:
    """Id of the process whose descendants are judged; workers of pytest-xdist are no other work for each other."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


class Reader:
    """Reads the counters of the machine and of one process tree."""

    def __init__(self, root: int) -> None:
        """Count ``root`` and its descendants as judged, even after their parents have ended.

        A descendant that has left its parent is recognised by ``JUDGED_VARIABLE`` if it was started after this.
        """
        import psutil  # here, because every suite imports this module

        self._known: dict[int, psutil.Process] = {root: psutil.Process(root)}
        self._mark = f"{JUDGED_VARIABLE}={root}".encode()
        self._seen: set[int] = set()
        os.environ[JUDGED_VARIABLE] = str(root)

    def sample(self) -> Sample:
        """Read all counters."""
        import psutil

        every = psutil.cpu_times(percpu=True)
        times = [every[number] for number in _usable_processors() if number < len(every)]
        own: dict[int, tuple[float, int]] = {}
        waits: dict[int, float] = {}
        for process in self._tree():
            # A process may end at any moment.
            with suppress(psutil.Error):
                spent = process.cpu_times()
                total_s = spent.user + spent.system + spent.children_user + spent.children_system
                own[process.pid] = (total_s, process.ppid())
                waits.update(_waits(process.pid))
        return Sample(
            time_s=time.monotonic(),
            busy_s=sum(
                one.user + one.system + sum(getattr(one, name, 0.0) for name in ("nice", "irq", "softirq"))
                for one in times
            ),
            steal_s=sum(getattr(one, "steal", 0.0) for one in times),
            throttled_s=_throttled_s(),
            own=own,
            waits=waits,
        )

    def _tree(self) -> list[psutil.Process]:
        import psutil

        present = set(psutil.pids())
        for number in present - self._seen:
            with suppress(OSError, psutil.Error):
                if self._mark in Path(f"/proc/{number}/environ").read_bytes().split(b"\0"):
                    self._known.setdefault(number, psutil.Process(number))
        self._seen = present
        for process in list(self._known.values()):
            with suppress(psutil.Error):
                if process.is_running():
                    self._known |= {child.pid: child for child in process.children(recursive=True)}
                    continue
            del self._known[process.pid]
        return list(self._known.values())


def _usable_processors() -> list[int]:
    count = os.cpu_count() or 1
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [number for number in usable if number < count] or list(range(count))


def _waits(process: int) -> Iterator[tuple[int, float]]:
    """Seconds that each thread of a process has waited for a processor; nothing where the kernel does not say."""
    with suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            with suppress(OSError, ValueError, IndexError):
                yield int(thread.name), int((thread / "schedstat").read_text().split()[1]) * 1e-9


def _throttled_s() -> float:
    for file, name, unit_s in _THROTTLING:
        with suppress(OSError, ValueError):
            counters = dict(line.split()[:2] for line in file.read_text().splitlines() if len(line.split()) >= 2)
            if name in counters:
                return int(counters[name]) * unit_s
    return 0.0
