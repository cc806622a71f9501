"""The lines between supervisor and worker."""

import pytest

from services.replayer.protocol import (
    Alive,
    Assign,
    Deadly,
    Fault,
    PartitionState,
    Progress,
    ProtocolError,
    Rate,
    Ready,
    Start,
    Stop,
    Stopped,
    Stretch,
    TopicPartition,
    ToSupervisor,
    ToWorker,
    Trying,
    Waiting,
    decode_to_supervisor,
    decode_to_worker,
    encode,
)

FLIGHTS = TopicPartition("flights", 3)

START = Start(
    version="jobs/j/versions/2",
    job="j",
    owner="w1",
    artifact_dir="a",
    definition_json="{}",
    kafka={"bootstrap.servers": "k:9092", "sasl.password": "hidden\n"},
    postgres="postgresql://u:secret@h/d",
    table="j__v2",
    lease_s=10.0,
    partitions=(FLIGHTS,),
    rate_per_s=12.5,
    record_by_record=(Stretch(FLIGHTS, 7),),
    deadly=(Deadly(FLIGHTS, 6, "died"),),
)


@pytest.mark.parametrize(
    "message",
    [START, Assign(partitions=(FLIGHTS, TopicPartition("flights", 0))), Rate(per_s=None), Rate(per_s=0.0), Stop()],
)
def test_messages_to_the_worker(message: ToWorker) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_to_worker(line) == message


@pytest.mark.parametrize(
    "message",
    [
        Ready(),
        Stopped(),
        Trying(topic="flights", partition=3, offset=6),
        Waiting(reason="KAFKA_UNAVAILABLE", message="it is away"),
        Progress(
            partitions=(
                PartitionState(
                    topic="flights",
                    partition=3,
                    next_offset=7,
                    end_offset=9,
                    log_start=2,
                    event_time_ms=None,
                    records=5,
                    set_aside=1,
                    at_end=False,
                ),
            )
        ),
        Fault(reason="MALFORMED_RECORD", message="a\nb", topic="flights", partition=3, offset=12),
        Alive(),
        Fault(reason="INTERNAL", message=""),
    ],
)
def test_messages_to_the_supervisor(message: ToSupervisor) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode_to_supervisor(line) == message


@pytest.mark.parametrize("line", [b"", b"\n", b"not json", b'{"type":"Ready"}', b'{"type":"Start"}', b'{"per_s":1}'])
def test_what_is_no_message_for_a_worker(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_to_worker(line)


@pytest.mark.parametrize("line", [b"", b"hello", b'{"type":"Stop"}', b'{"type":"Fault"}'])
def test_what_is_no_message_of_a_worker(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_to_supervisor(line)


def test_an_error_never_repeats_the_line() -> None:
    line = encode(START).replace(b'"lease_s":10.0', b'"lease_s":"ten"')
    with pytest.raises(ProtocolError) as caught:
        decode_to_worker(line)
    assert "secret" not in str(caught.value)
