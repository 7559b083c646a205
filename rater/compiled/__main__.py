"""`python -m rater.compiled`: compile the core if possible, and unless that was done before."""

import importlib.util
import os
import shutil
import sysconfig
import tempfile
from pathlib import Path

from rater.compiled import DOMAIN, MODULES, built


class NoCompilerError(Exception):
    """The core can't be compiled on this machine."""


def build() -> Path:
    """Compile the core, in about 15 s, unless that was done before; returns its folder. Raises `NoCompilerError`."""
    folder = built()
    if not folder.is_dir():
        _check_compiler()
        with tempfile.TemporaryDirectory() as name:
            _compile(Path(name))
            shutil.rmtree(folder.parent, ignore_errors=True)  # builds of other sources
            arriving = folder.with_suffix(".arriving")
            shutil.copytree(Path(name) / "built", arriving)
        arriving.rename(folder)
    return folder


def _check_compiler() -> None:
    compiler = str(sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        raise NoCompilerError(f"{compiler} is not installed")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise NoCompilerError("the C headers of Python are not installed")
    for tool in ("mypyc", "setuptools"):
        if importlib.util.find_spec(tool) is None:
            raise NoCompilerError(f"{tool} is not installed; install the extra `compiled`")


def _compile(place: Path) -> None:
    """Run mypyc and the C compiler in `place`, on a copy of the domain alone."""
    from mypyc.build import mypycify
    from setuptools import Distribution

    package = place / "rater"
    shutil.copytree(DOMAIN, package / "domain", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").touch()
    here = Path.cwd()
    os.chdir(place)
    try:
        sources = [f"rater/domain/{module}.py" for module in MODULES]
        extensions = mypycify(sources, opt_level="3", debug_level="0", target_dir="c", group_name="rater_domain")
        command = Distribution({"name": "rater", "ext_modules": extensions}).get_command_obj("build_ext")
        command.build_lib, command.build_temp = "built", "objects"
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(here)


if __name__ == "__main__":
    try:
        print(f"compiled: {build()}")
    except NoCompilerError as lack:
        print(f"not compiled: {lack}; the core runs as Python source, with the same results, more slowly")
