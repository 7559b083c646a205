"""Where whatever is fatal is reported: the first error ends the worker, and is the one that its last line names."""

import asyncio

__all__ = ["Failure"]


class Failure:
    """The error that ends the worker, once there is one."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.reported = asyncio.Event()

    def report(self, error: BaseException) -> None:
        """Keep the first error; later ones are consequences."""
        if self.error is None:
            self.error = error
            self.reported.set()
