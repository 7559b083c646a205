"""The engine's errors. There are two kinds.

Fatal: the worker must end before it commits anything more, because its view differs from the broker's or because it can't know
what happened. Every error that is not known to be harmless is fatal.

Retryable: the fault is in the connection or the broker, not in the data. The task is closed (its transaction is aborted or
fenced, and uncommitted state is discarded) and opened again, which repeats all checks.
"""

from aiokafka import errors as kafka

__all__ = [
    "BrokerNotReadyError",
    "CommitUnknownError",
    "EngineError",
    "FatalError",
    "FencedError",
    "InputLostError",
    "ProcessorFailedError",
    "SkippedError",
    "StateLostError",
    "StoreBusyError",
    "StoreError",
    "TopicsError",
    "is_retryable",
]


class EngineError(Exception):
    """Base class of the engine's errors. It is retryable only where `is_retryable` says so."""


class FatalError(EngineError):
    """The worker must end, with exit code 1."""


class FencedError(FatalError):
    """Another worker has taken over: it uses the task's transactional id or this worker's instance id."""


class StateLostError(FatalError):
    """The group's committed offsets are ahead of the state: part of the state is gone."""


class InputLostError(FatalError):
    """Input was lost: retention has deleted records that were never processed, or the topic was truncated or recreated."""


class SkippedError(FatalError):
    """The consumer's position is not the offset after the last record: a record would be skipped or processed twice."""


class TopicsError(FatalError):
    """A topic is missing or can't be used, or its number of partitions is wrong."""


class StoreError(FatalError):
    """The local store can't be opened or written, for example because the disk is full. The changelog still has all data."""


class ProcessorFailedError(FatalError):
    """The agent raised an exception. Its batch has not been committed."""


class CommitUnknownError(EngineError):
    """A commit got no answer, so it may or may not have happened. Opening the task again settles it."""


class BrokerNotReadyError(EngineError):
    """The broker gave no answer, or no complete one. A later request will get it."""


class StoreBusyError(EngineError):
    """Another process has the local store open."""


# InvalidProducerIdMapping: the broker forgets a transactional id after a week without use. Nothing was in flight then, and the
# next InitProducerId registers it again.
_HARMLESS = (
    BrokerNotReadyError,
    CommitUnknownError,
    ConnectionError,
    TimeoutError,
    kafka.InvalidProducerIdMapping,
    kafka.KafkaTimeoutError,
)


def is_retryable(error: BaseException) -> bool:
    """Whether closing the task and opening it again is known to help."""
    if isinstance(error, FatalError | kafka.ProducerFenced):
        return False
    if isinstance(error, _HARMLESS):
        return True
    if isinstance(error, kafka.KafkaError):
        # aiokafka's sender wraps the error that ends it in a plain KafkaError.
        cause = error.__cause__
        return bool(error.retriable) or (cause is not None and is_retryable(cause))
    return False
