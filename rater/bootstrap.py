"""Where things are wired: settings and topics in, a worker out. Nothing else makes one."""

from rater.agents.catalog import CatalogFeed
from rater.agents.rating import rating_factory
from rater.agents.timer import timer_factory
from rater.engine.app import EngineApp, TaskGroup, make_app
from rater.engine.follower import Follower
from rater.settings import Settings
from rater.topics import Topics, load_topics


def topics_of(settings: Settings) -> Topics:
    """The topics as the settings name them."""
    return load_topics(settings.topic_prefix, settings.partitions)


def rating_worker(settings: Settings) -> EngineApp:
    """The worker that rates: commands and CDRs of a partition have one writer; at the same instant commands go first."""
    topics = topics_of(settings)
    feed = CatalogFeed(topics)
    follower = Follower(settings, [topics.plan, topics.rate], feed.take)
    rating = TaskGroup(
        name="rating",
        topics=(topics.command, topics.cdr),
        processor=rating_factory(topics, feed, follower.barrier),
        changelog=topics.changelog,
        outputs=(
            topics.rated,
            topics.ledger,
            topics.event,
            topics.state,
            topics.recharge_request,
            topics.notification,
            topics.dead_letter,
        ),
    )
    return make_app(settings, [rating], [follower])


def timer_worker(settings: Settings) -> EngineApp:
    """The worker that says when something falls due: a consumer group of its own, as it reads what the rating agent writes."""
    topics = topics_of(settings)
    timer = TaskGroup(
        name="timer",
        topics=(topics.state,),
        processor=timer_factory(topics),
        changelog=topics.timer_changelog,
        outputs=(topics.command,),
    )
    return make_app(settings.model_copy(update={"app_id": f"{settings.app_id}-timer"}), [timer])
