#!/bin/sh
# Lints protos/ with buf by the rules of buf.yaml. The imports (google/api, google/rpc) come from the wheel
# googleapis-common-protos rather than from a registry of modules: protoc builds one image of everything, buf reads it.
# Needs .venv (buf) and .venv-protos (protoc), both made by `make lint`.
set -eu
cd "$(dirname "$0")/.."
python=.venv-protos/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
include=$("$python" -c 'import pathlib, google.api; print(pathlib.Path(google.api.__path__[0]).parent.parent)')
"$python" -m grpc_tools.protoc -I protos -I "$include" --include_imports --include_source_info -o "$work/image.binpb" \
    $(find protos -name '*.proto' | sort)
.venv/bin/buf lint "$work/image.binpb" --config buf.yaml
