"""An embedded cluster that lets in only whom it knows, and lets them do only what they may: TLS, SCRAM users, ACLs.

Clients come in by SASL_SSL alone; the controllers' listener stays in the clear on loopback. Rights are Kafka's own, by its
standard authorizer: what is not granted is refused. For tests: passwords stand in a command line and a folder.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ADMIN", "ClusterSecurity"]

#: The user that brokers are among each other, and that may do everything.
ADMIN = "admin"
_MECHANISM = "SCRAM-SHA-512"


@dataclass(frozen=True)
class ClusterSecurity:
    """`certificate`: a PEM file with the brokers' key (PKCS #8) and certificate, for 127.0.0.1. `users`: name → password."""

    certificate: Path
    ca: Path
    users: Mapping[str, str] = field(repr=False)

    def properties(self, host: str, port: int, controller_port: int) -> dict[str, str]:
        """Broker settings, over the plain ones."""
        login = "org.apache.kafka.common.security.scram.ScramLoginModule required"
        return {
            "listeners": f"SASL_SSL://{host}:{port},CONTROLLER://{host}:{controller_port}",
            "advertised.listeners": f"SASL_SSL://{host}:{port}",
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "SASL_SSL",
            "sasl.enabled.mechanisms": _MECHANISM,
            "sasl.mechanism.inter.broker.protocol": _MECHANISM,
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
                f'{login} username="{ADMIN}" password="{self.users[ADMIN]}";'
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.certificate),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": f"User:{ADMIN};User:ANONYMOUS",  # who is anonymous came by the controllers' own listener
        }

    def format_arguments(self) -> list[str]:
        """What tells a new storage its users."""
        return [
            argument
            for user, password in self.users.items()
            for argument in ("--add-scram", f"{_MECHANISM}=[name={user},password={password}]")
        ]

    def wrapped(self, connection: socket.socket) -> ssl.SSLSocket:
        """A connection that only wants to know whether anybody answers."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.check_hostname = False
        return context.wrap_socket(connection)
