"""An agent of your own: counts rated calls by destination country, exactly once. See docs/how-to/write-an-agent.md.

Run it as a worker: `python samples/calls_by_country.py`. It takes the rater's own settings (RATER_BOOTSTRAP, …).
"""

import asyncio
import logging
import sys

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from rater.bootstrap import engine_settings, topics_of
from rater.engine.app import EngineApp
from rater.engine.groups import TaskGroup
from rater.engine.run import run_worker
from rater.kafka.connection import client_options
from rater.settings import Settings

COUNTS = "calls-by-country"
CHANGELOG = "calls-by-country.changelog"


def counting_app(settings: Settings) -> EngineApp:
    """A Faust app with one agent. Its consumer group is `{RATER_APP_ID}-calls-by-country`."""
    app = EngineApp(engine_settings(settings, agent="calls-by-country"))
    prefix = settings.topic_prefix
    counts = prefix + COUNTS
    batches = app.batches(
        TaskGroup(
            name="calls-by-country",
            topics=(topics_of(settings).rated,),
            changelog=prefix + CHANGELOG,
            outputs=(counts,),
        )
    )

    @app.agent(batches, name="calls-by-country")
    async def count_calls(stream):
        """Counts rated calls by destination country."""
        async for batch in stream:
            async with batch as transaction:
                for record in transaction.records:
                    country = msgspec.json.decode(record.value)["destination_country"] or "-"
                    key = country.encode()
                    count = int(transaction.state.get(key) or 0) + 1
                    transaction.state.put(key, b"%d" % count)
                    transaction.emit(counts, key, b"%d" % count, record.timestamp)

    return app


async def create_topics(settings: Settings) -> None:
    """Create the agent's two topics, with as many partitions as the topic it reads. Existing topics stay as they are."""
    admin = AIOKafkaAdminClient(**client_options(settings.brokers))
    await admin.start()
    try:
        rated = topics_of(settings).rated
        (described,) = await admin.describe_topics([rated])
        partitions, copies, compact = len(described["partitions"]), settings.replication_factor, {"cleanup.policy": "compact"}
        names = [settings.topic_prefix + name for name in (COUNTS, CHANGELOG)]
        await admin.create_topics([NewTopic(name, partitions, copies, topic_configs=compact) for name in names])
    finally:
        await admin.close()


if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(create_topics(Settings()))
    sys.exit(run_worker(lambda: [counting_app(Settings())]))
