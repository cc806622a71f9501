"""Client properties: one form for both clients, errors that name the line or the key, and no secret shown."""

from pathlib import Path

import pytest

from core.kafka import KafkaConfig
from turnout.errors import InvalidInput


def write(directory: Path, text: str) -> Path:
    path = directory / "client.properties"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_serves_both_clients(tmp_path: Path) -> None:
    config = KafkaConfig.of_file(
        write(
            tmp_path,
            "# cluster\nbootstrap.servers = a:9092,b:9092\nsecurity.protocol=SASL_PLAINTEXT\n"
            "sasl.mechanism=PLAIN\nsasl.username=u\nsasl.password=p=q\n\n",
        )
    )
    assert config.bootstrap == "a:9092,b:9092"
    assert config.librdkafka()["sasl.password"] == "p=q"
    assert config.aiokafka() == {
        "bootstrap_servers": "a:9092,b:9092",
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "u",
        "sasl_plain_password": "p=q",
    }


def test_tls_becomes_a_context() -> None:
    config = KafkaConfig({"bootstrap.servers": "a:1", "security.protocol": "SSL"})
    assert config.aiokafka()["ssl_context"].check_hostname is True


def test_no_secret_is_shown() -> None:
    config = KafkaConfig({"bootstrap.servers": "a:1", "sasl.password": "hush", "ssl.key.password": "hush"})
    assert "hush" not in repr(config)
    assert "a:1" in repr(config)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("bootstrap.servers=a:1\nsasl.jaas.config=x\n", "sasl.jaas.config"),
        ("bootstrap.servers\n", "line 1"),
        ("client.id=x\n", "bootstrap.servers is missing"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        KafkaConfig.of_file(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        KafkaConfig.of_file(tmp_path / "none")
