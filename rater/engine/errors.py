"""What can go wrong in the engine, in two kinds.

Fatal: the worker must end before it commits anything more, because what it believes and what the broker
holds differ, or because nobody knows what happened. Everything that is not known to be harmless is fatal.

Retryable: the connection or the broker, not the data. The task is closed (its transaction aborted or
fenced, its state dropped to what is committed) and opened anew, which checks everything again.
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
    """Any error of the engine's own."""


class FatalError(EngineError):
    """The worker must end, with exit code 1."""


class FencedError(FatalError):
    """Another worker has taken over this task's transactional id."""


class StateLostError(FatalError):
    """The group's committed offsets are ahead of the state: part of the state is gone."""


class InputLostError(FatalError):
    """Records between the state's position and the first one the broker still has were never processed."""


class SkippedError(FatalError):
    """The consumer's position is not where the last record left it: records were dropped on the way."""


class TopicsError(FatalError):
    """A topic is missing, or has not the number of partitions that its task group needs."""


class StoreError(FatalError):
    """The local store can't be opened or written: the disk is full, or its folder is not ours. Nothing is lost, as
    the changelog has it all."""


class ProcessorFailedError(FatalError):
    """The processor raised. Its batch has not been committed."""


class CommitUnknownError(EngineError):
    """The commit was asked for and no answer came: a new producer settles it and the offsets are read
    again."""


class BrokerNotReadyError(EngineError):
    """The broker answered without saying what was asked: asked again later, it will."""


class StoreBusyError(EngineError):
    """Another process has the local store open."""


# The broker forgets a transactional id that has been idle for a week: nothing was in flight, a new
# InitProducerId cures it.
_HARMLESS = (
    BrokerNotReadyError,
    CommitUnknownError,
    ConnectionError,
    TimeoutError,
    kafka.InvalidProducerIdMapping,
    kafka.KafkaTimeoutError,
)


def is_retryable(error: BaseException) -> bool:
    """Whether closing the task and opening it anew is known to be the cure."""
    if isinstance(error, FatalError | kafka.ProducerFenced):
        return False
    if isinstance(error, _HARMLESS):
        return True
    if isinstance(error, kafka.KafkaError):
        # aiokafka's sender wraps what ends it in a bare KafkaError.
        cause = error.__cause__
        return bool(error.retriable) or (cause is not None and is_retryable(cause))
    return False
