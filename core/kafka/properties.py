"""The usual client properties (security.protocol, sasl.*, ssl.*), and what each of our two clients calls them."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnout.errors import InvalidInput

# property: aiokafka's argument; None = goes into the TLS context
_KNOWN: dict[str, str | None] = {
    "bootstrap.servers": "bootstrap_servers",
    "client.id": "client_id",
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "ssl.ca.location": None,
    "ssl.certificate.location": None,
    "ssl.key.location": None,
    "ssl.key.password": None,
}
_SECRET = frozenset({"sasl.password", "ssl.key.password"})


@dataclass(frozen=True, repr=False)
class KafkaConfig:
    """Client properties, by their usual names. Its repr shows no secret."""

    properties: dict[str, str]

    def __repr__(self) -> str:
        shown = {key: "***" if key in _SECRET else value for key, value in self.properties.items()}
        return f"KafkaConfig({shown})"

    @classmethod
    def of_bootstrap(cls, bootstrap: str) -> "KafkaConfig":
        """Plain text to "HOST:PORT[,HOST:PORT...]"."""
        return cls({"bootstrap.servers": bootstrap})

    @classmethod
    def of_file(cls, path: Path) -> "KafkaConfig":
        """A file of `key=value` lines; InvalidInput names a key that we do not know or a file that is not there."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise InvalidInput("KAFKA_CONFIG", f"Cannot read {path}: {error.strerror}.") from None
        properties: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith(("#", "!")):
                continue
            key, separator, value = line.partition("=")
            if not separator:
                raise InvalidInput("KAFKA_CONFIG", f"{path}, line {number} is not key=value.")
            properties[key.strip()] = value.strip()
        return cls.of_properties(properties, str(path))

    @classmethod
    def of_properties(cls, properties: dict[str, str], source: str) -> "KafkaConfig":
        """Checked properties; InvalidInput names what is unknown or missing in `source`."""
        unknown = sorted(set(properties) - set(_KNOWN))
        if unknown:
            raise InvalidInput(
                "KAFKA_CONFIG",
                f"{source}: {', '.join(unknown)} is not a property that both Kafka clients know; "
                f"known are {', '.join(_KNOWN)}.",
            )
        if not properties.get("bootstrap.servers"):
            raise InvalidInput("KAFKA_CONFIG", f"{source}: bootstrap.servers is missing.")
        return cls(properties)

    @property
    def bootstrap(self) -> str:
        return self.properties["bootstrap.servers"]

    def librdkafka(self) -> dict[str, Any]:
        """Properties for confluent-kafka. Its log lines about a broker that is away are left to us."""
        return {**self.properties, "log_level": 0}

    def aiokafka(self) -> dict[str, Any]:
        """Arguments for aiokafka."""
        arguments: dict[str, Any] = {}
        for key, value in self.properties.items():
            name = _KNOWN[key]
            if name is not None:
                arguments[name] = value
        if "SSL" in self.properties.get("security.protocol", ""):
            arguments["ssl_context"] = self._tls()
        return arguments

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.properties.get("ssl.ca.location"))
        certificate = self.properties.get("ssl.certificate.location")
        if certificate is not None:
            context.load_cert_chain(
                certificate, self.properties.get("ssl.key.location"), self.properties.get("ssl.key.password")
            )
        return context
