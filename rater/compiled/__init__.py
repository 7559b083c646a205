"""The core compiled to C: the same source, the same results, in less time.

`python -m rater.compiled` builds it with mypyc where there is a C compiler. From then on `import rater.domain…` finds what
was built from exactly this source for exactly this Python; anything else, and the source is run as it stands. So nothing
stale is ever run, and nothing is missing where no compiler is. `RATER_PURE=1` in the environment leaves the compiled core
aside.
"""

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Sequence
from hashlib import blake2b
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

__all__ = ["DOMAIN", "MODULES", "built", "is_used", "use"]

#: What the rating of a call passes through. Not in it: modules with `msgspec.Struct`s, whose options mypyc would drop.
MODULES = (
    "account",
    "calls",
    "catalog",
    "core",
    "counts",
    "dead_letters",
    "deck",
    "encoding",
    "event_writer",
    "idempotency",
    "loaded_accounts",
    "moments",
    "money",
    "plans",
    "rating",
    "reading",
    "recharge",
    "standings",
    "state_record",
    "wallet",
)

DOMAIN = Path(__file__).parent.parent / "domain"

_SUFFIX: str = sysconfig.get_config_var("EXT_SUFFIX")


class _Finder(MetaPathFinder):
    """Finds the built modules, and the library they share, by their names."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """As imports ask it."""
        file = self.files.get(fullname)
        return None if file is None else importlib.util.spec_from_file_location(fullname, file)


def use() -> bool:
    """Have imports find the compiled core, if there is one for this source and Python. Gives whether there is."""
    folder = built()
    if os.environ.get("RATER_PURE") == "1" or not folder.is_dir():
        return False
    files = folder.rglob(f"*{_SUFFIX}")
    names = {".".join(file.relative_to(folder).parts).removesuffix(_SUFFIX): file for file in files}
    sys.meta_path.insert(0, _Finder(names))
    return True


def is_used() -> bool:
    """Whether imports find the compiled core."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


def built() -> Path:
    """Where the core compiled from this source for this Python is, or would be."""
    # The types a compiled module imports decide on its code as well: all of the domain counts.
    digest = blake2b(f"{sys.version} {_SUFFIX} {MODULES}".encode(), digest_size=8)
    for source in sorted(DOMAIN.rglob("*.py")):
        digest.update(source.relative_to(DOMAIN).as_posix().encode() + source.read_bytes())
    return Path(__file__).parent / "built" / digest.hexdigest()
