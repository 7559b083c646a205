"""`python -m rater.ops.probe livez|readyz`: asks this machine's worker how it is; exit code 0 for good, 1 for anything else.

For probes that run inside a container: they need neither a client nor a token in a manifest. It reads the settings the worker
reads (`RATER_HTTP_…`, or the file RATER_SETTINGS_FILE names) with the standard library alone, as it runs every few seconds.
"""

import http.client
import os
import sys
import tomllib
from pathlib import Path

_TIMEOUT_S = 4.0
_PORT = 9480
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - where a worker may listen, asked at home


def main(arguments: list[str]) -> int:
    """Ask, and say what was answered."""
    if arguments not in (["livez"], ["readyz"]):
        print("usage: python -m rater.ops.probe livez|readyz", file=sys.stderr)
        return 2
    host = _setting("http_host") or "127.0.0.1"
    token = _setting("http_token")
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    connection = http.client.HTTPConnection(_ANY.get(host, host), int(_setting("http_port") or _PORT), timeout=_TIMEOUT_S)
    try:
        connection.request("GET", f"/{arguments[0]}", headers=headers)
        answer = connection.getresponse()
        print(answer.read().decode(errors="replace").rstrip())
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer: {error}")
        return 1
    return 0 if answer.status == http.HTTPStatus.OK else 1


def _setting(name: str) -> str | None:
    """A setting as the worker has it."""
    variable = f"RATER_{name.upper()}"
    if variable in os.environ:
        return os.environ[variable]
    if f"{variable}_FILE" in os.environ:
        return Path(os.environ[f"{variable}_FILE"]).read_text().strip()
    file = os.environ.get("RATER_SETTINGS_FILE")
    found = None if file is None else tomllib.loads(Path(file).read_text()).get(name)
    return None if found is None else str(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
