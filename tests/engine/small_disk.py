"""The toy worker with a limit on file sizes (FILE_BYTES_MAX). For a store that is the same as a full disk."""

import os
import resource
import runpy

from tests.engine.processes import TOY

LIMIT_BYTES = int(os.environ["FILE_BYTES_MAX"])

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))
    runpy.run_path(str(TOY), run_name="__main__")
