"""Input for the toy worker, and a check of its output."""

import random
from collections.abc import Iterable
from typing import Any

import msgspec

START_MS = 1_700_000_000_000

InputRecord = tuple[bytes, bytes, int]


def calls(partition: int, count: int, keys: int = 50, start: int = 0) -> list[InputRecord]:
    """`count` calls of `keys` accounts; call `n` is at START_MS + n."""
    rng = random.Random(partition * 1_000_003 + start)
    return [
        (
            b"org-%d-%d" % (partition, rng.randrange(keys)),
            msgspec.json.encode({"id": f"{partition}-{start + n}", "amount": rng.randrange(1000), "pad": "y" * 150}),
            START_MS + start + n,
        )
        for n in range(count)
    ]


def totals(records: Iterable[InputRecord]) -> dict[bytes, int]:
    """The sum of amounts by key, each id counted once."""
    seen: set[str] = set()
    sums: dict[bytes, int] = {}
    for key, value, _ in records:
        call = msgspec.json.decode(value)
        if call["id"] not in seen:
            seen.add(call["id"])
            sums[key] = sums.get(key, 0) + call["amount"]
    return sums


def check_rated(rated: Iterable[Any], given: list[InputRecord]) -> None:
    """Check that every call came out once, in order for its account, and that each account ends with the right total."""
    ids: list[str] = []
    last: dict[bytes, int] = {}
    count: dict[bytes, int] = {}
    for record in rated:
        call = msgspec.json.decode(record.value)
        ids.append(call["id"])
        count[record.key] = count.get(record.key, 0) + 1
        assert call["n"] == count[record.key], "a record of the account is missing or comes twice"
        last[record.key] = call["total"]
    assert len(ids) == len(set(ids))
    assert set(ids) == {msgspec.json.decode(value)["id"] for _, value, _ in given}
    assert last == totals(given)
