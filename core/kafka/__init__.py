"""Kafka for every service: client properties in one form for both clients, and topics as the broker sees them."""

from core.kafka.admin import LogRange, TopicAdmin, TopicInfo
from core.kafka.properties import KafkaConfig

__all__ = ["KafkaConfig", "LogRange", "TopicAdmin", "TopicInfo"]
