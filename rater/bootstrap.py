"""Where things are wired: settings and topics in, workers out. Nothing else makes one.

An agent is an app of its own: a consumer group, its tasks, its changelog. The rating agent's group is the `app_id`, another's
is `{app_id}-{agent}`, so any subset runs in one process or in many, and none of them knows of the others.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from rater.adapters.notices import Channel, ChannelName
from rater.adapters.notices.webhook import WebhookChannel
from rater.adapters.payments.circuit_breaker import BreakerLimits, CircuitBreaker
from rater.adapters.payments.gateway import Gateway
from rater.adapters.payments.webhook import WebhookGateway
from rater.adapters.standard_webhooks import read_secret
from rater.agents.catalog import CatalogFeed
from rater.agents.notification import Closing, notification_factory
from rater.agents.rating import rating_factory
from rater.agents.recharge import recharge_factory
from rater.agents.timer import timer_factory
from rater.domain import moments
from rater.engine.app import EngineApp, TaskGroup, make_app, wall_clock_ms
from rater.engine.engine import BackgroundService
from rater.engine.follower import Follower
from rater.kafka.topics import Topics, load_topics
from rater.settings import Settings


def topics_of(settings: Settings) -> Topics:
    """The topics as the settings name them."""
    return load_topics(settings.topic_prefix, settings.partitions)


def rating_agent(settings: Settings) -> EngineApp:
    """Rates: commands and CDRs of a partition have one writer; at the same instant commands go first."""
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
            topics.directory,
            topics.dead_letter,
        ),
        partitions=topics.account_partitions,
    )
    return make_app(settings, [rating], [follower], gauges=feed.gauges)


def timer_agent(settings: Settings) -> EngineApp:
    """Says when something falls due: reads the state that the rating agent writes, publishes commands to it."""
    topics = topics_of(settings)
    timer = TaskGroup(
        name="timer",
        topics=(topics.state,),
        processor=timer_factory(topics),
        changelog=topics.timer_changelog,
        outputs=(topics.command,),
        partitions=topics.account_partitions,
    )
    return make_app(_own_group(settings, "timer"), [timer])


def recharge_agent(settings: Settings) -> EngineApp:
    """Takes the money of top-ups: reads the requests of the rating agent, publishes commands to it."""
    topics = topics_of(settings)
    accounts = f"{settings.topic_prefix}{settings.app_id}"  # whose charges these are, where a gateway serves several
    limits = BreakerLimits(
        settings.payment_concurrency_max,
        settings.payment_timeout_ms,
        settings.payment_failures_max,
        settings.payment_shut_ms,
    )
    not_before_us = 0 if settings.payment_not_before is None else moments.to_us(settings.payment_not_before)
    breaker = CircuitBreaker(_gateway(settings, accounts), limits, settings.payment_stop_file, wall_clock_ms)
    recharge = TaskGroup(
        name="recharge",
        topics=(topics.recharge_request,),
        processor=recharge_factory(topics, breaker, not_before_us),
        changelog=topics.recharge_changelog,
        outputs=(topics.command,),
        partitions=topics.account_partitions,
    )
    return make_app(
        _own_group(settings, "recharge"), [recharge], [breaker, *_endpoints(settings, accounts, topics)], gauges=breaker.gauges
    )


def notification_agent(settings: Settings) -> EngineApp:
    """Tells people: reads the notifications of the rating agent, publishes what came of them to it as commands."""
    topics = topics_of(settings)
    channels = _channels(settings)
    notification = TaskGroup(
        name="notification",
        topics=(topics.notification,),
        processor=notification_factory(topics, channels, wall_clock_ms),
        changelog=topics.notification_changelog,
        outputs=(topics.command,),
        partitions=topics.account_partitions,
    )
    return make_app(_own_group(settings, "notification"), [notification], [Closing(channels)])


@dataclass(frozen=True, slots=True)
class Agent:
    """How an agent is made. `lacks` says which setting it can't run without and hasn't got; nothing when it can run."""

    make: Callable[[Settings], EngineApp]
    lacks: Callable[[Settings], str | None] = lambda _: None


#: Every agent there is, by the name that `rater worker --agents` knows it by.
AGENTS = {
    "rating": Agent(rating_agent),
    "timer": Agent(timer_agent),
    "recharge": Agent(recharge_agent, lambda settings: None if settings.payment_gateway else "RATER_PAYMENT_GATEWAY"),
    "notification": Agent(
        notification_agent,
        lambda settings: (
            None if settings.mail_host or settings.notify_webhook_url else "RATER_MAIL_HOST or RATER_NOTIFY_WEBHOOK_URL"
        ),
    ),
}


def set_up(settings: Settings) -> list[str]:
    """The agents that the settings suffice for: what a worker runs unless told otherwise."""
    return [name for name, agent in AGENTS.items() if agent.lacks(settings) is None]


def lacking(settings: Settings, names: Collection[str]) -> dict[str, str]:
    """Agent → the setting it lacks, of those that can't run."""
    found = {name: AGENTS[name].lacks(settings) for name in names}
    return {name: lack for name, lack in found.items() if lack is not None}


def make_agents(settings: Settings, names: Collection[str]) -> list[EngineApp]:
    """The apps of the named agents; to be made, and run, inside one event loop."""
    return [AGENTS[name].make(settings) for name in names]


def _gateway(settings: Settings, accounts: str) -> Gateway:
    if settings.payment_gateway == "stripe":
        from rater.adapters.payments.stripe import StripeGateway  # its SDK takes a second that others need not wait for

        assert settings.stripe_api_key is not None
        api_key = settings.stripe_api_key.get_secret_value()
        return StripeGateway(api_key, accounts, settings.payment_timeout_ms, settings.stripe_api_url)
    assert settings.payment_webhook_url is not None
    assert settings.payment_webhook_secret is not None
    secret = read_secret(settings.payment_webhook_secret.get_secret_value())
    return WebhookGateway(settings.payment_webhook_url, secret, accounts)


def _channels(settings: Settings) -> dict[ChannelName, Channel]:
    channels: dict[ChannelName, Channel] = {}
    if settings.mail_host is not None:
        from rater.adapters.notices.mail import MailChannel, MailServer
        from rater.adapters.notices.mail_templates import MailTemplates

        assert settings.mail_from is not None
        password = None if settings.mail_password is None else settings.mail_password.get_secret_value()
        ca_file = None if settings.mail_ca_file is None else str(settings.mail_ca_file)
        place = (settings.mail_host, settings.mail_port, settings.mail_security)
        server = MailServer(*place, settings.mail_user, password, settings.notify_timeout_ms, ca_file)
        channels["mail"] = MailChannel(server, MailTemplates(settings.mail_from, settings.mail_templates))
    if settings.notify_webhook_url is not None:
        assert settings.notify_webhook_secret is not None
        secret = read_secret(settings.notify_webhook_secret.get_secret_value())
        channels["webhook"] = WebhookChannel(settings.notify_webhook_url, secret, settings.notify_timeout_ms)
    return channels


def _endpoints(settings: Settings, accounts: str, topics: Topics) -> list[BackgroundService]:
    if settings.payment_gateway != "stripe" or settings.stripe_webhook_secrets is None:
        return []
    from rater.adapters.payments.stripe_events import StripeEndpoint

    secrets = settings.stripe_webhook_secrets.get_secret_value().split(",")
    place = (settings.stripe_webhook_host, settings.stripe_webhook_port)
    return [StripeEndpoint(secrets, accounts, settings.brokers, topics.command, *place)]


def _own_group(settings: Settings, agent: str) -> Settings:
    return settings.model_copy(update={"app_id": f"{settings.app_id}-{agent}"})
