"""An event loop with virtual time: when no task can run, the clock jumps to the next timer.

So minutes of timeouts take milliseconds, and the same program takes the same steps every time.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

#: The simulated process that a task belongs to. Tasks inherit it.
OWNER: ContextVar[object] = ContextVar("owner")


class StalledError(Exception):
    """No task can run, and no timer is set."""


class VirtualLoop(asyncio.BaseEventLoop):
    """It knows each task's `OWNER`, so that all tasks of a process can be killed at once."""

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
        """Stands in for a selector: it moves the clock instead of waiting."""
        if timeout_s is None:
            raise StalledError
        self._now_s += timeout_s
        return []

    def start_as(self, owner: object, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Start `work` as a task of `owner`. All tasks that it starts also belong to `owner`."""

        def set_and_start() -> "asyncio.Task[Any]":
            OWNER.set(owner)
            return self.create_task(work)

        return copy_context().run(set_and_start)

    def kill(self, owner: object) -> None:
        """Cancel all tasks of `owner` except the one that is running now."""
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
        """Does nothing: there are no I/O events."""

    def _write_to_self(self) -> None:
        """Does nothing: there is no selector to wake up."""


def run(loop: VirtualLoop, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Run `work` to its end, then cancel all remaining tasks."""
    try:
        loop.run_until_complete(work())
    finally:
        for task in list(loop._tasks):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
