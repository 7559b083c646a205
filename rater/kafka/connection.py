"""How every Kafka client of this program connects: addresses and credentials.

The rest of the program passes `Brokers` around: a `Connection` made from the settings, or just "host:port,…" for brokers
without security (an embedded broker). Only `client_options` turns it into aiokafka's options.
"""

import asyncio
import re
import ssl
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Brokers", "Connection", "client_options", "explained", "is_loopback", "let_go", "refusal", "tls_context"]

_CONNECT_TIMEOUT_MS = 5000
_STOP_TIMEOUT_S = 0.5
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_LOOPBACK_NETWORK = re.compile(r"127\.\d+\.\d+\.\d+")


@dataclass(frozen=True, slots=True)
class Connection:
    """Kafka's addresses and the options (credentials, TLS) a client needs. Prints as its addresses only, never its secrets."""

    bootstrap: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return self.bootstrap


Brokers = Connection | str


def client_options(brokers: Brokers) -> dict[str, Any]:
    """Keyword arguments for any of aiokafka's clients."""
    if isinstance(brokers, str):
        return {"bootstrap_servers": brokers}
    return {"bootstrap_servers": brokers.bootstrap, **brokers.options}


async def refusal(connection: Connection) -> Exception | None:
    """Ask each broker why it refuses this client. Returns the first reason; None if no broker gives one.

    aiokafka's own clients only report that they could not connect.
    """
    from aiokafka.conn import create_conn  # imported late: slow, and not needed just to read settings
    from aiokafka.errors import KafkaConnectionError, KafkaError

    for address in connection.bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            (
                await create_conn(host.strip("[]"), int(port), request_timeout_ms=_CONNECT_TIMEOUT_MS, **connection.options)
            ).close()
        except ssl.SSLError as error:
            return error
        except KafkaConnectionError:
            continue
        except KafkaError as error:
            refused: Exception = error
            return refused
        except (OSError, TimeoutError):
            continue
    return None


def explained(error: BaseException) -> str:
    """A client's error in one line: its type, and its message if it has one."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def is_loopback(host: str, *, whole_network: bool = False) -> bool:
    """Whether a host, without a port, is this machine: 127.0.0.1, ::1 or localhost.

    `whole_network`: every other address of 127.0.0.0/8 too. The settings don't ask for it: to let data travel unencrypted they
    want one of the three names.
    """
    return host in _LOOPBACK or (whole_network and _LOOPBACK_NETWORK.fullmatch(host) is not None)


def tls_context(ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    """TLS for a client; it always checks the broker's certificate and host name. Raises OSError if a file can't be used."""
    context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    return context


async def let_go(stopping: Coroutine[Any, Any, None], timeout_s: float = _STOP_TIMEOUT_S) -> bool:
    """Stop a client, whatever it is doing: never raises, never takes long. Returns False if it did not stop as it should.

    It runs in a task of its own: a consumer that waits to ask a broker that is away answers with CancelledError, which would
    end the task that stops it.
    """
    stop = asyncio.ensure_future(stopping)
    await asyncio.wait([stop], timeout=timeout_s)
    if not stop.done():
        stop.cancel()
        return False
    return not stop.cancelled() and stop.exception() is None
