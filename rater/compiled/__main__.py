"""`python -m rater.compiled`: compile the core, where that is possible. What is built already is not built again."""

import importlib.util
import os
import shutil
import sysconfig
import tempfile
from pathlib import Path

from rater.compiled import DOMAIN, MODULES, built


class NoCompilerError(Exception):
    """There is nothing here to compile with."""


def build() -> Path:
    """Compile the core, in about 10 s. Raises `NoCompilerError`."""
    folder = built()
    if not folder.is_dir():
        _check_compiler()
        with tempfile.TemporaryDirectory() as name:
            _compile(Path(name))
            shutil.rmtree(folder.parent, ignore_errors=True)  # of former sources
            arriving = folder.with_suffix(".arriving")
            shutil.copytree(Path(name) / "built", arriving)
        arriving.rename(folder)
    return folder


def _check_compiler() -> None:
    compiler = str(sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        raise NoCompilerError(f"there is no {compiler}")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise NoCompilerError("the headers of Python are not installed")
    for tool in ("mypyc", "setuptools"):
        if importlib.util.find_spec(tool) is None:
            raise NoCompilerError(f"{tool} is not installed; the extra `compiled` brings it")


def _compile(place: Path) -> None:
    """Run mypyc and the C compiler in `place`, on a copy of the domain and nothing else."""
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
        print(f"not compiled, the core is interpreted, slower and otherwise the same: {lack}")
