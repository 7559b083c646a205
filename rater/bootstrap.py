"""The one place where things are wired: settings in, apps with their agents out.

Each agent has an app of its own: a consumer group, its tasks, its changelog. The rating agent's group is the `app_id`,
another's is `{app_id}-{agent}`. So any subset runs in one process or in many, and no agent knows of the others.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace

from rater.adapters.notices import Channel, ChannelName
from rater.adapters.notices.webhook import WebhookChannel
from rater.adapters.payments.circuit_breaker import BreakerLimits, CircuitBreaker
from rater.adapters.payments.gateway import Gateway
from rater.adapters.payments.webhook import WebhookGateway
from rater.adapters.standard_webhooks import read_secret
from rater.agents import notification, rating, recharge, timer
from rater.agents.catalog import CatalogFeed
from rater.domain import moments
from rater.engine.app import EngineApp, wall_clock_ms
from rater.engine.engine import BackgroundService
from rater.engine.follower import Follower
from rater.engine.groups import TaskGroup
from rater.engine.settings import EngineSettings
from rater.kafka.topics import Topics, load_topics
from rater.settings import Settings


def topics_of(settings: Settings) -> Topics:
    """The topics as the settings name them."""
    return load_topics(settings.topic_prefix, settings.partitions)


def engine_settings(settings: Settings, agent: str | None = None) -> EngineSettings:
    """What the engine is told; `agent`: for the app of an agent with a consumer group of its own."""
    names = [field.name for field in fields(EngineSettings)]
    chosen = EngineSettings(**{name: getattr(settings, name) for name in names})
    return chosen if agent is None else replace(chosen, app_id=f"{settings.app_id}-{agent}")


def rating_app(settings: Settings) -> EngineApp:
    """Rates. Commands and CDRs of a partition have one writer; at the same instant commands go first."""
    topics = topics_of(settings)
    chosen = engine_settings(settings)
    feed = CatalogFeed(topics)
    follower = Follower(chosen, [topics.plan, topics.rate], feed.take)
    app = EngineApp(chosen, [follower], metrics=rating.CATALOG_METRICS, gauges=feed.gauges)
    group = TaskGroup(
        name="rating",
        topics=(topics.command, topics.cdr),
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
        memory=rating.rating_memory(topics, feed),
        metrics=rating.METRICS,
    )
    rating.define_rating(app, app.batches(group), follower.barrier)
    return app


def timer_app(settings: Settings) -> EngineApp:
    """Says when something falls due: reads the state that the rating agent writes, and publishes commands to it."""
    topics = topics_of(settings)
    app = EngineApp(engine_settings(settings, "timer"))
    group = TaskGroup(
        name="timer",
        topics=(topics.state,),
        changelog=topics.timer_changelog,
        outputs=(topics.command,),
        partitions=topics.account_partitions,
        memory=timer.timer_memory(topics),
        metrics=timer.METRICS,
    )
    timer.define_timer(app, app.batches(group))
    return app


def recharge_app(settings: Settings) -> EngineApp:
    """Takes the money for top-ups: reads the requests of the rating agent, and publishes commands to it."""
    topics = topics_of(settings)
    accounts = f"{settings.topic_prefix}{settings.app_id}"  # whose charges these are, if a gateway serves several
    limits = BreakerLimits(
        settings.payment_concurrency_max,
        settings.payment_timeout_ms,
        settings.payment_failures_max,
        settings.payment_shut_ms,
    )
    not_before_us = 0 if settings.payment_not_before is None else moments.to_us(settings.payment_not_before)
    breaker = CircuitBreaker(_gateway(settings, accounts), limits, settings.payment_stop_file, wall_clock_ms)
    app = EngineApp(
        engine_settings(settings, "recharge"),
        [breaker, *_endpoints(settings, accounts, topics)],
        metrics=recharge.GATEWAY_METRICS,
        gauges=breaker.gauges,
    )
    group = TaskGroup(
        name="recharge",
        topics=(topics.recharge_request,),
        changelog=topics.recharge_changelog,
        outputs=(topics.command,),
        partitions=topics.account_partitions,
        memory=recharge.recharge_memory(topics, breaker, not_before_us),
        metrics=recharge.METRICS,
    )
    recharge.define_recharge(app, app.batches(group))
    return app


def notification_app(settings: Settings) -> EngineApp:
    """Sends mails and webhooks: reads the notifications of the rating agent, and publishes the results to it as commands."""
    topics = topics_of(settings)
    channels = _channels(settings)
    app = EngineApp(engine_settings(settings, "notification"), [notification.OpenChannels(channels)])
    group = TaskGroup(
        name="notification",
        topics=(topics.notification,),
        changelog=topics.notification_changelog,
        outputs=(topics.command,),
        partitions=topics.account_partitions,
        memory=notification.notification_memory(topics, channels, wall_clock_ms),
        metrics=notification.METRICS,
    )
    notification.define_notification(app, app.batches(group))
    return app


@dataclass(frozen=True, slots=True)
class Agent:
    """How an agent's app is made. `lacks` names the setting that it can't run without and that is not set; None: it can run."""

    make: Callable[[Settings], EngineApp]
    lacks: Callable[[Settings], str | None] = lambda _: None


#: Every agent there is, by the name that `rater worker --agents` knows it by.
AGENTS = {
    "rating": Agent(rating_app),
    "timer": Agent(timer_app),
    "recharge": Agent(recharge_app, lambda settings: None if settings.payment_gateway else "RATER_PAYMENT_GATEWAY"),
    "notification": Agent(
        notification_app,
        lambda settings: (
            None if settings.mail_host or settings.notify_webhook_url else "RATER_MAIL_HOST or RATER_NOTIFY_WEBHOOK_URL"
        ),
    ),
}


def configured(settings: Settings) -> list[str]:
    """The agents that are configured: what a worker runs unless told otherwise."""
    return [name for name, agent in AGENTS.items() if agent.lacks(settings) is None]


def lacking(settings: Settings, names: Collection[str]) -> dict[str, str]:
    """Agent → the setting it lacks, for those that can't run."""
    found = {name: AGENTS[name].lacks(settings) for name in names}
    return {name: lack for name, lack in found.items() if lack is not None}


def make_agents(settings: Settings, names: Collection[str]) -> list[EngineApp]:
    """The apps of the named agents. Make and run them inside one event loop."""
    return [AGENTS[name].make(settings) for name in names]


def _gateway(settings: Settings, accounts: str) -> Gateway:
    if settings.payment_gateway == "stripe":
        from rater.adapters.payments.stripe import StripeGateway  # its SDK takes a second to load

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
