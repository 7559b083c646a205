"""Security for an embedded cluster: TLS, SCRAM users and ACLs.

Clients can connect only with SASL_SSL; the controllers' listener is unencrypted, on loopback. Kafka's standard authorizer
refuses everything that is not granted. Only for tests: the passwords appear on a command line and in a folder.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ADMIN", "ClusterSecurity"]

#: The user of the brokers among themselves. It may do everything.
ADMIN = "admin"
_MECHANISM = "SCRAM-SHA-512"


@dataclass(frozen=True)
class ClusterSecurity:
    """`certificate`: a PEM file with the brokers' key (PKCS #8) and certificate for 127.0.0.1. `ca`: the CA, as PEM. `users`:
    name → password, with `ADMIN` among them.
    """

    certificate: Path
    ca: Path
    users: Mapping[str, str] = field(repr=False)

    def properties(self, host: str, port: int, controller_port: int) -> dict[str, str]:
        """Broker settings that override the unsecured ones."""
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
            "super.users": f"User:{ADMIN};User:ANONYMOUS",  # only the controllers' listener has anonymous clients
        }

    def format_arguments(self) -> list[str]:
        """Arguments of Kafka's storage tool that create the users in a new storage."""
        return [
            argument
            for user, password in self.users.items()
            for argument in ("--add-scram", f"{_MECHANISM}=[name={user},password={password}]")
        ]

    def wrapped(self, connection: socket.socket) -> ssl.SSLSocket:
        """The connection with TLS, for checking whether the broker answers. It verifies the CA but not the host name."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.check_hostname = False
        return context.wrap_socket(connection)
