"""Which hosts count as this machine."""

import pytest

from rater.kafka.connection import is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_the_three_names_of_this_machine_are_loopback(host: str) -> None:
    assert is_loopback(host)
    assert is_loopback(host, whole_network=True)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "10.0.0.1", "kafka.example.com", "localhost.example.com"])
def test_other_hosts_are_not(host: str) -> None:
    assert not is_loopback(host)
    assert not is_loopback(host, whole_network=True)


def test_the_rest_of_127_is_loopback_only_when_asked_for() -> None:
    assert not is_loopback("127.0.0.2")
    assert is_loopback("127.0.0.2", whole_network=True)
