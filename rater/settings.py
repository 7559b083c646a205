"""The settings of a process.

A setting comes from the first of these places that has it:

1. the environment: `RATER_BOOTSTRAP` for the field `bootstrap`
2. a file of its own, for secrets: `RATER_KAFKA_PASSWORD_FILE` names the file that holds `kafka_password`
3. the TOML file that `RATER_SETTINGS_FILE` names; its keys are the field names
4. the default below

Names carry their units and numbers have bounds. An unknown key in the TOML file or a value out of bounds stops the process
before it connects to anything.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import AwareDatetime, Field, SecretStr, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from rater.adapters.standard_webhooks import read_secret
from rater.kafka.connection import Connection, is_loopback, tls_context

__all__ = ["Settings"]

_NAME = r"^[A-Za-z0-9._-]+$"
_SAFE_URL = r"^(https://|http://(127\.0\.0\.1|localhost|\[::1\])[:/]).+"  # unencrypted only within this machine
_MIB = 1024 * 1024


class Settings(BaseSettings):
    """Every setting. The text under a field is its description."""

    model_config = SettingsConfigDict(
        env_prefix="RATER_", extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )

    # Connection to Kafka

    bootstrap: str = "127.0.0.1:9092"
    """Kafka brokers, as `host:port`, comma separated. Name two or three, so that one of them may be down."""

    kafka_security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    """How to connect to the brokers: `ssl` encrypts, `sasl_` logs in with a user and password. Use `sasl_ssl` in production."""

    kafka_plaintext_allowed: bool = False
    """Allows unencrypted connections to brokers on other machines. Set it only if the network is safe by other means."""

    kafka_ca_file: Path | None = None
    """PEM file of the certificate authorities to trust for brokers. By default the system's."""

    kafka_cert_file: Path | None = None
    """PEM file of this client's certificate. Set it and `kafka_key_file` if the brokers require one."""

    kafka_key_file: Path | None = None
    """PEM file of the private key of `kafka_cert_file`."""

    kafka_sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = "SCRAM-SHA-512"
    """SASL mechanism to log in with. Set it to one that the brokers offer."""

    kafka_user: str | None = None
    """SASL user. Required if `kafka_security` is `sasl_ssl` or `sasl_plaintext`."""

    kafka_password: SecretStr | None = None
    """SASL password of `kafka_user`."""

    # Identity and place

    topic_prefix: str = Field(default="", pattern=r"^[A-Za-z0-9._-]{0,100}$")
    """Put before every topic name. Give each installation on a cluster its own, and don't change it once there is data."""

    app_id: str = Field(default="rater", pattern=_NAME, max_length=100)
    """Consumer group of the rating agent; also begins the other groups' names and every transactional id.

    Don't change it: a new `app_id` has no state and processes all input from the beginning.
    """

    instance_id: str | None = Field(default=None, pattern=_NAME, max_length=100)
    """Id for static group membership: a worker that restarts under its id gets its partitions back at once.

    Use a name that is unique among the workers and stays the same after a restart, such as the pod's name.
    """

    data_dir: Path = Path("rater-data")
    """Folder for the local stores. Use a disk that survives a restart. They are a cache: a lost one is rebuilt from Kafka."""

    partitions: int = Field(default=4, ge=1, le=1000)
    """Partitions per account topic: created by `rater topics apply`, checked by each worker. Fixed once there is data."""

    replication_factor: int = Field(default=1, ge=1, le=5)
    """Copies of each topic that `rater topics apply` creates. If not set, it makes 3, or one per broker if there are fewer."""

    # Batches

    batch_records_max: int = Field(default=8000, ge=1, le=100_000)
    """Maximum number of input records in a batch (one transaction of one partition). Also limits how many are read ahead."""

    batch_bytes_max: int = Field(default=16 * _MIB, ge=64 * 1024, le=256 * _MIB)
    """Maximum bytes of input values in a batch. Also limits how much is read ahead. Lower it to save memory."""

    fetch_bytes_max: int = Field(default=4 * _MIB, ge=64 * 1024, le=64 * _MIB)
    """Maximum bytes that one request fetches from one partition. Lower it to save memory."""

    fetch_wait_ms_max: int = Field(default=100, ge=1, le=5000)
    """How long a broker may hold a fetch that finds no records, in ms. Keep it short: its other partitions wait meanwhile."""

    output_batch_bytes_max: int = Field(default=900_000, ge=16_384, le=8 * _MIB)
    """Maximum bytes of a record batch to write, before compression. Keep it below each output topic's `max.message.bytes`."""

    output_compression: Literal["none", "snappy", "lz4", "zstd"] = "zstd"
    """Compression of outputs and changelog. Avoid `lz4`: aiokafka uses its highest level, at ten times snappy's cost."""

    merge_wait_ms_max: int = Field(default=1000, ge=0, le=60_000)
    """How long an input topic whose next record isn't known yet may hold back the other topics of its partition, in ms.

    A higher value keeps records in timestamp order when a broker is slow; a lower one lets the other topics go on.
    """

    # Consumer group, time limits, health

    session_timeout_ms: int = Field(default=10_000, ge=1000, le=300_000)
    """A worker that sends no heartbeat for this long, in ms, loses its partitions.

    With `instance_id`, set it longer than a restart takes: the worker gets its partitions back and no other worker notices.
    """

    heartbeat_interval_ms: int = Field(default=2000, ge=100, le=60_000)
    """Time between heartbeats, in ms. Keep it below a third of `session_timeout_ms`."""

    rebalance_timeout_ms: int = Field(default=30_000, ge=1000, le=300_000)
    """How long workers have to rejoin their group in a rebalance, in ms. Batches in progress get half of it to finish."""

    broker_timeout_ms: int = Field(default=15_000, ge=500, le=120_000)
    """Time limit for a request to a broker or a step of a transaction, in ms. After it the batch is aborted and retried.

    The brokers' `transaction.max.timeout.ms` must be at least four times this.
    """

    retry_wait_ms_max: int = Field(default=5000, ge=10, le=60_000)
    """Maximum wait between two retries after a broker error, in ms. The first waits are shorter."""

    stall_ms_max: int = Field(default=60_000, ge=1000, le=3_600_000)
    """`/livez` reports a worker as not alive when a partition has lag and hasn't moved for this long, in ms."""

    stall_is_fatal: bool = False
    """Ends the worker after `stall_ms_max` without progress. Set it if nothing watches `/livez`."""

    accept_lost_input: bool = False
    """Lets a worker start although retention deleted input that was never processed. Set it for one start, then remove it."""

    shutdown_ms_max: int = Field(default=4500, ge=500, le=60_000)
    """Time limit for shutting down, in ms; after it the process exits with 1. Keep it below your platform's kill timeout."""

    # Local store

    store_cache_bytes: int = Field(default=32 * _MIB, ge=_MIB, le=8192 * _MIB)
    """Size of the local store's read cache, in bytes per partition."""

    store_age_ms_max: int = Field(default=12 * 3_600_000, ge=60_000, le=24 * 3_600_000)
    """A local store that was out of use for longer than this, in ms, is rebuilt: it may have missed deletions.

    Keep it below the changelog topics' `delete.retention.ms`.
    """

    # Log, traces, health and metrics

    log_format: Literal["auto", "console", "json"] = "auto"
    """Log format. `console` is text for people; `auto` is `console` on a terminal and `json` everywhere else."""

    tracing: bool = False
    """Exports one OpenTelemetry span per batch. Needs the extra `tracing`; the usual `OTEL_…` variables set the destination."""

    http_host: str = "127.0.0.1"
    """Address to serve `/livez`, `/readyz` and `/metrics` on. An address other than loopback needs `http_token`."""

    http_port: int | None = Field(default=None, ge=0, le=65_535)
    """Port to serve them on; 0 picks any free one. By default the first free port from 9480 to 9499, for several workers."""

    http_token: SecretStr | None = Field(default=None, min_length=16)
    """If set, every request to them must carry it as `Authorization: Bearer …`. At least 16 characters."""

    # Recharge agent

    payment_gateway: Literal["stripe", "webhook"] | None = None
    """What charges cards: Stripe, or a payment service of your own (`webhook`). If not set, the recharge agent doesn't run."""

    payment_timeout_ms: int = Field(default=10_000, ge=100, le=14_000)
    """Time limit for a charge, in ms. After it the outcome is unknown and the agent asks again under the same key."""

    payment_concurrency_max: int = Field(default=32, ge=1, le=1000)
    """Maximum number of charges a process has in progress at once. Keep it within your gateway's limits."""

    payment_failures_max: int = Field(default=5, ge=1, le=1000)
    """After this many gateway failures in a row the circuit breaker opens and charges wait."""

    payment_shut_ms: int = Field(default=30_000, ge=100, le=3_600_000)
    """Maximum time the circuit breaker stays open before it lets one charge through, in ms. The minimum is half of it."""

    payment_stop_file: Path | None = None
    """While this file exists no charge begins; those in progress finish. Create it to stop payments, delete it to resume."""

    payment_not_before: AwareDatetime | None = None
    """Ignore requests older than this (RFC 3339 with a zone); the previous payment system handles them."""

    payment_webhook_url: str | None = Field(default=None, pattern=_SAFE_URL)
    """URL of your payment service, for `payment_gateway` `webhook`. HTTPS, except on this machine."""

    payment_webhook_secret: SecretStr | None = None
    """Key that signs requests to your payment service: `whsec_` and the base64 of at least 24 bytes."""

    stripe_api_key: SecretStr | None = None
    """Restricted Stripe key that may write PaymentIntents and read PaymentMethods. Required for `payment_gateway` `stripe`."""

    stripe_api_url: str | None = Field(default=None, pattern=_SAFE_URL)
    """URL to use instead of Stripe's. For tests only."""

    stripe_webhook_secrets: SecretStr | None = None
    """Secrets to check Stripe's webhooks with: `whsec_…`, comma separated. If not set, the agent doesn't listen for any."""

    stripe_webhook_host: str = "127.0.0.1"
    """Address to listen on for Stripe's webhooks. Put a TLS proxy in front of it."""

    stripe_webhook_port: int = Field(default=8481, ge=1, le=65_535)
    """Port to listen on for Stripe's webhooks."""

    # Notification agent

    mail_host: str | None = None
    """SMTP server that sends notifications. Needs `mail_from`. If not set, no mail is sent."""

    mail_port: int = Field(default=587, ge=1, le=65_535)
    """Port of the mail server."""

    mail_security: Literal["starttls", "tls", "none"] = "starttls"
    """Encryption to the mail server: `tls` from the first byte, `starttls` after the greeting, `none` not at all."""

    mail_plaintext_allowed: bool = False
    """Allows `mail_security` `none` to a mail server on another machine."""

    mail_ca_file: Path | None = None
    """PEM file of the certificate authorities to trust for the mail server. By default the system's."""

    mail_user: str | None = None
    """User to log in to the mail server as. Set both it and `mail_password`, or neither."""

    mail_password: SecretStr | None = None
    """Password of `mail_user`."""

    mail_from: str | None = None
    """Sender address of every mail. Required with `mail_host`."""

    mail_templates: Path | None = None
    """Folder with your own mail templates. Each replaces the built-in template of the same name."""

    notify_webhook_url: str | None = Field(default=None, pattern=_SAFE_URL)
    """URL that notifications are posted to. HTTPS, except on this machine. Needs `notify_webhook_secret`."""

    notify_webhook_secret: SecretStr | None = None
    """Key that signs those requests: `whsec_` and the base64 of at least 24 bytes."""

    notify_timeout_ms: int = Field(default=10_000, ge=100, le=14_000)
    """Time limit for one mail or webhook, in ms. After it the delivery is retried later."""

    @cached_property
    def brokers(self) -> Connection:
        """How to connect to Kafka. Raises ValueError if a certificate file can't be used."""
        options: dict[str, Any] = {"security_protocol": self.kafka_security.upper()}
        if "ssl" in self.kafka_security:
            try:
                options["ssl_context"] = tls_context(self.kafka_ca_file, self.kafka_cert_file, self.kafka_key_file)
            except OSError as error:
                raise ValueError(f"kafka_ca_file, kafka_cert_file or kafka_key_file: {error}") from error
        if "sasl" in self.kafka_security:
            assert self.kafka_password is not None
            options["sasl_mechanism"] = self.kafka_sasl_mechanism
            options["sasl_plain_username"] = self.kafka_user
            options["sasl_plain_password"] = self.kafka_password.get_secret_value()
        return Connection(self.bootstrap, options)

    @model_validator(mode="after")
    def _check_kafka(self) -> "Settings":
        """Unencrypted traffic to another machine must be asked for, never a default."""
        hosts = [address.strip().rpartition(":")[0].strip("[]") for address in self.bootstrap.split(",")]
        away = [host for host in hosts if not is_loopback(host)]
        if away and "ssl" not in self.kafka_security and not self.kafka_plaintext_allowed:
            raise ValueError(
                f"bootstrap names another machine ({', '.join(away)}), and with kafka_security {self.kafka_security} calls "
                "and money would go there in the clear: set kafka_security to sasl_ssl or ssl, or set kafka_plaintext_allowed"
            )
        if "sasl" in self.kafka_security and (self.kafka_user is None or self.kafka_password is None):
            raise ValueError(f"kafka_security {self.kafka_security} needs kafka_user and kafka_password")
        if "sasl" not in self.kafka_security and (self.kafka_user is not None or self.kafka_password is not None):
            raise ValueError(
                f"kafka_user and kafka_password need kafka_security sasl_ssl or sasl_plaintext, not {self.kafka_security}"
            )
        if (self.kafka_cert_file is None) != (self.kafka_key_file is None):
            raise ValueError("set both kafka_cert_file and kafka_key_file, or neither")
        _ = self.brokers
        return self

    @model_validator(mode="after")
    def _check_endpoint(self) -> "Settings":
        if not is_loopback(self.http_host) and self.http_token is None:
            raise ValueError(f"http_host {self.http_host} is not loopback and needs http_token")
        return self

    @model_validator(mode="after")
    def _check_notifications(self) -> "Settings":
        """A channel with only half of its settings is an error; it isn't silently switched off."""
        if self.mail_host is not None:
            if self.mail_from is None:
                raise ValueError("mail_host needs mail_from")
            if (self.mail_user is None) != (self.mail_password is None):
                raise ValueError("set both mail_user and mail_password, or neither")
            local = is_loopback(self.mail_host)
            if self.mail_security == "none" and not (local or self.mail_plaintext_allowed):
                raise ValueError(
                    f"mail_security none would send mail to {self.mail_host} in the clear: set it to starttls or tls, "
                    "or set mail_plaintext_allowed"
                )
        if (self.notify_webhook_url is None) != (self.notify_webhook_secret is None):
            raise ValueError("set both notify_webhook_url and notify_webhook_secret, or neither")
        if self.notify_webhook_secret is not None:
            read_secret(self.notify_webhook_secret.get_secret_value())
        return self

    @model_validator(mode="after")
    def _check_payments(self) -> "Settings":
        """A gateway with only half of its settings is an error; it isn't silently switched off."""
        needed = {"stripe": ["stripe_api_key"], "webhook": ["payment_webhook_url", "payment_webhook_secret"]}
        missing = [name for name in needed.get(self.payment_gateway or "", []) if getattr(self, name) is None]
        if missing:
            raise ValueError(f"payment_gateway {self.payment_gateway} needs {' and '.join(missing)}")
        if self.payment_webhook_secret is not None:
            read_secret(self.payment_webhook_secret.get_secret_value())
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where settings come from, first to last. Raises FileNotFoundError if a file that was named can't be read."""
        del dotenv_settings, file_secret_settings
        sources = [init_settings, env_settings, _SecretFiles(settings_cls)]
        file = os.environ.get("RATER_SETTINGS_FILE")
        if file is not None:
            if not Path(file).is_file():
                raise FileNotFoundError(f"RATER_SETTINGS_FILE names {file!r}, which is not a file")
            sources.append(TomlConfigSettingsSource(settings_cls, Path(file)))
        return tuple(sources)


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads a secret `x` from the file that `RATER_X_FILE` names, without the newline at its end."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The content of the secret's file; None if the field is no secret or has no file.

        Raises FileNotFoundError if the file can't be read or the secret is also set directly.
        """
        variable = f"RATER_{field_name.upper()}"
        file = os.environ.get(f"{variable}_FILE")
        if file is None or SecretStr not in (field.annotation, *get_args(field.annotation)):
            return None, field_name, False
        if variable in os.environ:
            raise FileNotFoundError(f"{variable} and {variable}_FILE are both set; remove one")
        try:
            return Path(file).read_text().rstrip("\r\n"), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            raise FileNotFoundError(f"{variable}_FILE names {file!r}, which can't be read: {error}") from error

    def __call__(self) -> dict[str, Any]:
        """Name → value of every secret that comes from a file."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}
