"""`rater worker` during start-up."""

import signal
import subprocess
import sys

STARTING = """
import sys, time
import rater.cli.worker as worker
def settings_with(**_):
    print("starting", flush=True)
    time.sleep(60)
worker.settings_with = settings_with
worker.worker.main(["--agents", "rating"])
"""


def test_sigterm_during_start_up_exits_with_0() -> None:
    process = subprocess.Popen([sys.executable, "-c", STARTING], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"starting\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
