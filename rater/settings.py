"""Settings of a process: from the environment (`RATER_…`), else from a TOML file, else the defaults below.

`RATER_SETTINGS_FILE` names the TOML file; its keys are the field names. Every name carries its unit, every
number its bounds; an unknown key in the file or a value out of bounds stops the process before it touches
anything. A secret may come from a file of its own instead: RATER_KAFKA_PASSWORD_FILE names the one with RATER_KAFKA_PASSWORD.
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
_SAFE_URL = r"^(https://|http://(127\.0\.0\.1|localhost|\[::1\])[:/]).+"  # in the clear only within this machine
_MIB = 1024 * 1024


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="RATER_", extra="forbid", frozen=True, hide_input_in_errors=True)

    bootstrap: str = Field(default="127.0.0.1:9092", description="Kafka brokers, host:port, comma separated.")
    kafka_security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    kafka_plaintext_allowed: bool = Field(default=False, description="Needed to reach brokers elsewhere without TLS.")
    kafka_ca_file: Path | None = Field(default=None, description="Whose certificates are believed, instead of the system's.")
    kafka_cert_file: Path | None = Field(default=None, description="This client's own certificate, where brokers want one.")
    kafka_key_file: Path | None = None
    kafka_sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = "SCRAM-SHA-512"
    kafka_user: str | None = None
    kafka_password: SecretStr | None = None

    topic_prefix: str = Field(default="", pattern=r"^[A-Za-z0-9._-]{0,100}$", description="Put before every topic's name.")
    app_id: str = Field(
        default="rater",
        pattern=_NAME,
        max_length=100,
        description="Consumer group, and first part of every transactional id. Changing it is starting anew.",
    )
    instance_id: str | None = Field(
        default=None,
        pattern=_NAME,
        max_length=100,
        description="Static group membership: a worker that comes back under its id gets its partitions at once.",
    )
    data_dir: Path = Field(default=Path("rater-data"), description="Local stores: a cache, never the only copy.")
    partitions: int = Field(default=4, ge=1, le=1000, description="Partitions of the account topics, for creating them.")
    replication_factor: int = Field(default=1, ge=1, le=5, description="Copies of the topics, for creating them.")

    batch_records_max: int = Field(default=8000, ge=1, le=100_000)
    batch_bytes_max: int = Field(default=16 * _MIB, ge=64 * 1024, le=256 * _MIB)
    fetch_bytes_max: int = Field(
        default=4 * _MIB, ge=64 * 1024, le=64 * _MIB, description="Fetched of one partition in one request."
    )
    fetch_wait_ms_max: int = Field(
        default=100,
        ge=1,
        le=5000,
        description="How long the broker holds a fetch that finds nothing. Short: others on the node wait meanwhile.",
    )
    output_batch_bytes_max: int = Field(
        default=900_000,
        ge=16_384,
        le=8 * _MIB,
        description="Before compression, of one record batch; below max.message.bytes of every output topic.",
    )
    output_compression: Literal["none", "snappy", "lz4", "zstd"] = Field(
        default="zstd",
        description="Of outputs and changelog. aiokafka packs lz4 at its highest level, at ten times snappy's cost.",
    )
    merge_wait_ms_max: int = Field(
        default=1000,
        ge=0,
        le=60_000,
        description="How long a topic that has not been read to its end may hold back the others of its task.",
    )

    session_timeout_ms: int = Field(default=10_000, ge=1000, le=300_000)
    heartbeat_interval_ms: int = Field(default=2000, ge=100, le=60_000)
    rebalance_timeout_ms: int = Field(default=30_000, ge=1000, le=300_000)
    broker_timeout_ms: int = Field(
        default=15_000, ge=500, le=120_000, description="For each step of a transaction, then it is aborted."
    )
    retry_wait_ms_max: int = Field(default=5000, ge=10, le=60_000)
    stall_ms_max: int = Field(
        default=60_000,
        ge=1000,
        le=3_600_000,
        description="A partition that lags and has not moved for so long makes the worker not alive.",
    )
    accept_lost_input: bool = Field(
        default=False,
        description="Go on when retention has taken input that was never processed, instead of refusing to start.",
    )
    stall_is_fatal: bool = Field(default=False, description="Then end the worker instead of only reporting it.")
    shutdown_ms_max: int = Field(default=4500, ge=500, le=60_000)

    store_cache_bytes: int = Field(default=32 * _MIB, ge=_MIB, le=8192 * _MIB, description="Of one partition.")
    store_age_ms_max: int = Field(
        default=12 * 3_600_000,
        ge=60_000,
        le=24 * 3_600_000,
        description=(
            "A local store left behind for longer is rebuilt: the changelog may have dropped deletions it never saw. "
            "Keep it below the changelog's delete.retention.ms."
        ),
    )

    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: for people on a terminal, JSON everywhere else."
    )
    tracing: bool = Field(
        default=False, description="A span a batch, by OpenTelemetry; where to is said by its own OTEL_… variables."
    )
    http_host: str = Field(default="127.0.0.1", description="Where /livez, /readyz and /metrics are.")
    http_port: int | None = Field(
        default=None, ge=0, le=65_535, description="By default the first free one of 9480 to 9499; 0: any free one."
    )
    http_token: SecretStr | None = Field(
        default=None, min_length=16, description="Needed off loopback: then every request says `Authorization: Bearer …`."
    )

    payment_gateway: Literal["stripe", "webhook"] | None = Field(
        default=None, description="Who takes the money of top-ups: Stripe, or a payment service of the operator's own."
    )
    payment_timeout_ms: int = Field(default=10_000, ge=100, le=14_000, description="For a charge, then it is asked about.")
    payment_concurrency_max: int = Field(default=32, ge=1, le=1000, description="Charges under way at once in a process.")
    payment_failures_max: int = Field(default=5, ge=1, le=1000, description="Of the gateway, in a row, then charges wait.")
    payment_shut_ms: int = Field(default=30_000, ge=100, le=3_600_000, description="How long charges wait then, at most.")
    payment_stop_file: Path | None = Field(default=None, description="While this file exists, no charge is begun.")
    payment_not_before: AwareDatetime | None = Field(
        default=None, description="Requests from before then are left to who took payments before: no card is charged."
    )
    payment_webhook_url: str | None = Field(default=None, pattern=_SAFE_URL, description="The operator's payment service.")
    payment_webhook_secret: SecretStr | None = Field(default=None, description="What is sent there is signed with it: whsec_….")
    stripe_api_key: SecretStr | None = None
    stripe_api_url: str | None = Field(default=None, pattern=_SAFE_URL, description="Instead of Stripe's own: for tests.")
    stripe_webhook_secrets: SecretStr | None = Field(
        default=None, description="whsec_…, comma separated: Stripe's webhooks are taken in, and checked with these."
    )
    stripe_webhook_host: str = "127.0.0.1"
    stripe_webhook_port: int = Field(default=8481, ge=1, le=65_535)

    mail_host: str | None = Field(default=None, description="The mail server that takes notifications.")
    mail_port: int = Field(default=587, ge=1, le=65_535)
    mail_security: Literal["starttls", "tls", "none"] = "starttls"
    mail_plaintext_allowed: bool = Field(default=False, description="Needed for mail_security none off this machine.")
    mail_ca_file: Path | None = Field(default=None, description="Whose certificates are believed, instead of the system's.")
    mail_user: str | None = None
    mail_password: SecretStr | None = None
    mail_from: str | None = Field(default=None, description="The sender's address.")
    mail_templates: Path | None = Field(default=None, description="A folder of templates that go before the rater's own.")
    notify_webhook_url: str | None = Field(default=None, pattern=_SAFE_URL, description="Where notifications are posted.")
    notify_webhook_secret: SecretStr | None = Field(
        default=None, description="What is posted there is signed with it: whsec_…."
    )
    notify_timeout_ms: int = Field(default=10_000, ge=100, le=14_000, description="For a mail or a webhook.")

    @cached_property
    def brokers(self) -> Connection:
        """How Kafka is reached. Raises ValueError where a certificate's file is no use."""
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
    def _kafka_is_guarded(self) -> "Settings":
        """Nothing leaves this machine in the clear by an oversight."""
        hosts = [address.strip().rpartition(":")[0].strip("[]") for address in self.bootstrap.split(",")]
        away = [host for host in hosts if not is_loopback(host)]
        if away and "ssl" not in self.kafka_security and not self.kafka_plaintext_allowed:
            raise ValueError(
                f"bootstrap {', '.join(away)} is not this machine and kafka_security is {self.kafka_security}: calls and money "
                "would cross the network in the clear. Set kafka_security to sasl_ssl or ssl, or kafka_plaintext_allowed"
            )
        if "sasl" in self.kafka_security and (self.kafka_user is None or self.kafka_password is None):
            raise ValueError(f"kafka_security {self.kafka_security} needs kafka_user and kafka_password")
        if "sasl" not in self.kafka_security and (self.kafka_user is not None or self.kafka_password is not None):
            raise ValueError(f"kafka_user and kafka_password are for kafka_security sasl_ssl, not {self.kafka_security}")
        if (self.kafka_cert_file is None) != (self.kafka_key_file is None):
            raise ValueError("kafka_cert_file and kafka_key_file go together")
        _ = self.brokers
        return self

    @model_validator(mode="after")
    def _endpoint_is_guarded(self) -> "Settings":
        if not is_loopback(self.http_host) and self.http_token is None:
            raise ValueError(f"http_host {self.http_host}: whoever asks from elsewhere needs http_token")
        return self

    @model_validator(mode="after")
    def _notifications_are_whole(self) -> "Settings":
        """Half a way to tell people is a mistake, not a worker without one."""
        if self.mail_host is not None:
            if self.mail_from is None:
                raise ValueError("mail_host needs mail_from")
            if (self.mail_user is None) != (self.mail_password is None):
                raise ValueError("mail_user and mail_password go together")
            local = is_loopback(self.mail_host)
            if self.mail_security == "none" and not (local or self.mail_plaintext_allowed):
                raise ValueError(
                    "mail_security none: mail would leave this machine in the clear; mail_plaintext_allowed lets it"
                )
        if (self.notify_webhook_url is None) != (self.notify_webhook_secret is None):
            raise ValueError("notify_webhook_url and notify_webhook_secret go together")
        if self.notify_webhook_secret is not None:
            read_secret(self.notify_webhook_secret.get_secret_value())
        return self

    @model_validator(mode="after")
    def _gateway_is_whole(self) -> "Settings":
        """Half a gateway is a mistake, not a worker without one."""
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
        del dotenv_settings, file_secret_settings
        sources = [init_settings, env_settings, _SecretFiles(settings_cls)]
        file = os.environ.get("RATER_SETTINGS_FILE")
        if file is not None:
            if not Path(file).is_file():
                raise FileNotFoundError(f"RATER_SETTINGS_FILE names {file!r}, which is no file")
            sources.append(TomlConfigSettingsSource(settings_cls, Path(file)))
        return tuple(sources)


class _SecretFiles(PydanticBaseSettingsSource):
    """Any secret `x` may come from the file that RATER_X_FILE names: what stands in it, without the line's end."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The file's content, if the field is a secret and a file is named for it."""
        variable = f"RATER_{field_name.upper()}"
        file = os.environ.get(f"{variable}_FILE")
        if file is None or SecretStr not in (field.annotation, *get_args(field.annotation)):
            return None, field_name, False
        if variable in os.environ:
            raise FileNotFoundError(f"{variable} and {variable}_FILE are both set: which is meant?")
        try:
            return Path(file).read_text().rstrip("\r\n"), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            raise FileNotFoundError(f"{variable}_FILE names {file!r}, which can't be read: {error}") from error

    def __call__(self) -> dict[str, Any]:
        """Every secret that a file is named for."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}
