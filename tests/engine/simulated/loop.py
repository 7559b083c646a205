"""An event loop whose time is virtual: when nothing is left to do, the clock jumps to what is due next.

So minutes of timeouts take milliseconds, and the same program takes the same steps every time.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

#: Which of the simulated processes a task belongs to; tasks inherit it.
OWNER: ContextVar[object] = ContextVar("owner")


class StalledError(Exception):
    """Everything waits for something that will never happen."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Its tasks are told apart by `OWNER`, so that a process can be killed: all it has under way, at once."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._selector = self
        self._tasks: dict[asyncio.Task[Any], object] = {}
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._now_s

    def select(self, timeout_s: float | None) -> list[Any]:
        """As a selector would wait, but it takes no time."""
        if timeout_s is None:
            raise StalledError
        self._now_s += timeout_s
        return []

    def start_as(self, owner: object, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """A task of `owner`, and all that it starts."""

        def set_and_start() -> "asyncio.Task[Any]":
            OWNER.set(owner)
            return self.create_task(work)

        return copy_context().run(set_and_start)

    def kill(self, owner: object) -> None:
        """Cancel all tasks of `owner` but the one that is running."""
        running = asyncio.current_task(self)
        for task, of in list(self._tasks.items()):
            if of is owner and task is not running:
                task.cancel()

    def _make_task(self, loop: Any, work: Any, context: Context | None = None) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.Task(work, loop=self, context=context)
        self._tasks[task] = OWNER.get(None)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        del self._tasks[task]

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody is waiting in another thread."""


def run(loop: VirtualLoop, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Run to the end, then end whatever is left."""
    try:
        loop.run_until_complete(work())
    finally:
        for task in list(loop._tasks):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
