"""`python -m rater.ops.probe livez|readyz` asks the worker on this machine whether it is alive or ready.

Exits with 0 if it is, with 1 if it isn't or doesn't answer, with 2 on wrong usage. Made for probes that run inside a container:
they then need no HTTP client, and no token in a manifest. It reads the worker's own settings (`RATER_HTTP_…`, or the file that
`RATER_SETTINGS_FILE` names) and imports only the standard library, because it runs every few seconds.
"""

import http.client
import os
import sys
import tomllib
from pathlib import Path

_TIMEOUT_S = 4.0
_PORT = 9480
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - if a worker listens on all addresses, ask it on loopback


def main(arguments: list[str]) -> int:
    """Print the worker's answer. Returns the exit code."""
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
    """The setting's value as the worker reads it; None if it isn't set."""
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
