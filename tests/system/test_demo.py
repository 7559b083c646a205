"""`rater demo`, run without any settings."""

import os
import re
import subprocess
import sys

RUN_TIMEOUT_S = 150


def test_the_demos_books_agree_and_service_is_suspended_at_zero_and_restored_by_the_recharge() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RATER_")}
    command = [sys.executable, "-m", "rater", "demo", "--seconds", "6"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = re.findall(r"  adatum +(service suspended|recharge\.requested|recharge\.succeeded|service restored)", ran.stdout)
    # States and events come from two topics, so their lines may appear in either order.
    assert said.index("service suspended") < said.index("service restored")
    assert said.index("recharge.requested") < said.index("recharge.succeeded")
    assert "credit.expiring" in ran.stdout, "the timer must warn about credit bought long ago"
    assert re.search(r"payments +taken: .*card-adatum", ran.stdout)
    assert "every balance agrees, to the last millionth" in ran.stdout
