"""Files the program needs at run time that are not code: topics, schemas, samples.

In a checkout they lie in folders beside the package; a wheel carries them inside it, under `_resources`.
"""

from pathlib import Path

_PACKAGE = Path(__file__).parent
_CANDIDATES = (_PACKAGE / "_resources", _PACKAGE.parent)


def resource(*parts: str) -> Path:
    """Return the path of a shipped file or folder, as in `resource("topics", "topics.toml")`.

    Raises FileNotFoundError, naming the places looked at, when the installation lacks it.
    """
    places = [base.joinpath(*parts) for base in _CANDIDATES]
    for place in places:
        if place.exists():
            return place
    raise FileNotFoundError(f"not part of this installation: {' nor '.join(map(str, places))}")


def topics_file() -> Path:
    return resource("topics", "topics.toml")


def schemas_dir() -> Path:
    return resource("schemas")


def sample_rate_deck() -> Path:
    """The real outbound rate deck of October 2025 (see samples/README.md for its source and licence)."""
    return resource("samples", "pstn-rates-2025-10.csv")
