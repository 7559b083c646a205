"""Prints calls of the last hour, one per line, for the organizations in `organizations.json`:

    python samples/make_calls.py | rater publish --format json -

Calls of a closed month can't be rated, so each run prints new calls, with the current time.
"""

import json
from datetime import UTC, datetime, timedelta

NOW = datetime.now(UTC).replace(microsecond=0)
CONTOSO, NORTHWIND = ("contoso", "+14255550100"), ("northwind", "+442079460100")

# Organization, user, callee, seconds; one call a minute.
CALLS = [
    (CONTOSO, "user-1", "+14255550123", 125),
    (NORTHWIND, "user-1", "+442079460958", 210),
    (CONTOSO, "user-2", "+12065550147", 48),
    (CONTOSO, "user-3", "+442079460958", 610),
    (NORTHWIND, "user-2", "+33140205050", 1500),
    (CONTOSO, "user-4", "+4930901820", 333),
    (CONTOSO, "user-5", "+4915112345678", 95),
    (NORTHWIND, "user-3", "+33612345678", 2400),
    (NORTHWIND, "user-4", "+4917612345678", 1800),
    (CONTOSO, "user-1", "+81312345678", 720),
    (CONTOSO, "user-6", "+14255550123", 0),
    (NORTHWIND, "user-5", "+61293744000", 260),
    (CONTOSO, "user-7", "+13035550199", 3605),
    (NORTHWIND, "user-2", "+8613812345678", 900),
]


def main() -> None:
    """Print the calls."""
    for minute, ((org_id, caller), user_id, callee, duration_s) in enumerate(CALLS):
        answered_at = NOW - timedelta(hours=1, minutes=len(CALLS) - minute)
        call = {
            "cdr_id": f"sample:{NOW:%Y%m%dT%H%M%S}:{minute}",
            "org_id": org_id,
            "user_id": user_id,
            "call_type": "user_out",
            "number_type": "subscriber",
            "caller": caller,
            "callee": callee,
            "answered_at": answered_at.isoformat(),
            "duration_ms": duration_s * 1000,
            "source": "sample",
        }
        print(json.dumps(call))


if __name__ == "__main__":
    main()
