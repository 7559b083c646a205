"""A fake payment gateway for each test."""

from collections.abc import AsyncIterator

import pytest

from tests.fake_gateway import FakeGateway


@pytest.fixture
async def fake() -> AsyncIterator[FakeGateway]:
    async with FakeGateway().serve() as serving:
        yield serving
