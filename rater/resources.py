"""Finds the files, other than code, that the program needs at run time: topics, schemas, samples, Kafka roles.

In a checkout they are in folders beside the package; in a wheel they are inside the package, under `_resources`.
"""

from pathlib import Path

_PACKAGE = Path(__file__).parent
_CANDIDATES = (_PACKAGE / "_resources", _PACKAGE.parent)


def resource(*parts: str) -> Path:
    """Return the path of a shipped file or folder, for example `resource("topics", "topics.toml")`.

    Raises FileNotFoundError, with the paths tried, if the installation doesn't have it.
    """
    paths = [base.joinpath(*parts) for base in _CANDIDATES]
    for path in paths:
        if path.exists():
            return path
    raise FileNotFoundError(f"not part of this installation: tried {', '.join(map(str, paths))}")


def topics_file() -> Path:
    """The definitions of the topics."""
    return resource("topics", "topics.toml")


def schemas_dir() -> Path:
    """The folder of the JSON Schemas."""
    return resource("schemas")


def sample_rate_deck() -> Path:
    """The real outbound rate deck of October 2025 (see samples/README.md for its source and licence)."""
    return resource("samples", "pstn-rates-2025-10.csv")
