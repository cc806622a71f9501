"""The checked-in stubs are those of protos/: `make protos` was not forgotten. (`make lint` compares comments too.)"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2

REPOSITORY = Path(__file__).parent.parent.parent.parent
BUF = Path(sys.executable).parent / "buf"
PROTOS = sorted(str(path.relative_to(REPOSITORY / "protos")) for path in (REPOSITORY / "protos").rglob("*.proto"))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """The files of protos/, compiled now, beside the two of google/api that they need."""
    directory = tmp_path_factory.mktemp("protos")
    shutil.copytree(REPOSITORY / "protos", directory, dirs_exist_ok=True)
    # Its import also makes the annotation known to the parser below.
    installed = Path(field_behavior_pb2.__file__).parent
    (directory / "google" / "api").mkdir(parents=True)
    shutil.copy(installed / "field_behavior.proto", directory / "google" / "api")
    image = directory / "image.binpb"
    subprocess.run(
        [BUF, "build", directory, "--as-file-descriptor-set", "--exclude-source-info", "-o", image],
        check=True,
        env={"HOME": str(directory)},
    )
    files = descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes()).file
    return {file.name: file for file in files if file.name.startswith("turnout/")}


@pytest.mark.parametrize("proto", PROTOS)
def test_the_stub_is_what_its_proto_says(proto: str, compiled: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
    stub = descriptor_pb2.FileDescriptorProto()
    module = proto.removesuffix(".proto").replace("/", ".")
    importlib.import_module(f"{module}_pb2").DESCRIPTOR.CopyToProto(stub)
    source = compiled[proto]
    _without_json_names(source)
    _without_json_names(stub)
    assert stub == source, f"{proto}: run `make protos` and commit what it changes"


def _without_json_names(file: descriptor_pb2.FileDescriptorProto) -> None:
    """One compiler writes the default JSON names down, the other leaves them out."""
    messages = list(file.message_type)
    while messages:
        message = messages.pop()
        messages += message.nested_type
        for field in message.field:
            field.ClearField("json_name")
