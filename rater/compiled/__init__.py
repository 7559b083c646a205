"""The core compiled to C: the same source and the same results, in less time.

If there is a C compiler, `python -m rater.compiled` builds the core with mypyc. From then on `import rater.domain…` finds the
build made from exactly this source for exactly this Python. Without such a build the source itself is run, so a stale build is
never used, and no compiler is required. With `RATER_PURE=1` in the environment the source is run in any case.
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

#: The modules that rating a call passes through. Modules with `msgspec.Struct`s can't be here: mypyc would drop their options.
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
    "rated_calls",
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
    """Finds the built modules, and the library they share, by name."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Called by `import`."""
        file = self.files.get(fullname)
        return None if file is None else importlib.util.spec_from_file_location(fullname, file)


def use() -> bool:
    """Let imports find the compiled core; returns whether there is one for this source and Python."""
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
    """The folder of the core compiled from this source for this Python, whether it exists or not."""
    # All of the domain counts, as the code of a compiled module also depends on the types it imports.
    digest = blake2b(f"{sys.version} {_SUFFIX} {MODULES}".encode(), digest_size=8)
    for source in sorted(DOMAIN.rglob("*.py")):
        digest.update(source.relative_to(DOMAIN).as_posix().encode() + source.read_bytes())
    return Path(__file__).parent / "built" / digest.hexdigest()
