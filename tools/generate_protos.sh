#!/bin/sh
# Regenerates the gRPC stubs under sdk/python/turnout from protos/. With --check it only tells whether they are fresh.
# Needs .venv-protos (made by `make protos`): grpcio-tools 1.71, whose stubs load on protobuf 5.29 to 7.
set -eu
cd "$(dirname "$0")/.."
python=.venv-protos/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
include=$("$python" -c 'import pathlib, google.api; print(pathlib.Path(google.api.__path__[0]).parent.parent)')
mkdir "$work/out"
compile() {
    PATH="$PWD/.venv-protos/bin:$PATH" "$python" -m grpc_tools.protoc -I protos -I "$include" "$@"
}
compile --python_out="$work/out" --mypy_out=quiet:"$work/out" $(find protos -name '*.proto' | sort)
# Of a file without a service there would be a module of calls that holds none.
compile --grpc_python_out="$work/out" --mypy_grpc_out=quiet:"$work/out" $(grep -rl --include='*.proto' '^service ' protos | sort)
stale=0
for service in registry replayer switcher query; do
    touch "$work/out/turnout/$service/__init__.py" "$work/out/turnout/$service/v1/__init__.py"
    if [ "${1:-}" = --check ]; then
        diff -rq -x __pycache__ "$work/out/turnout/$service" "sdk/python/turnout/$service" || stale=1
    else
        rm -rf "sdk/python/turnout/$service"
        cp -r "$work/out/turnout/$service" "sdk/python/turnout/$service"
    fi
done
if [ "$stale" = 1 ]; then
    echo "The stubs are not fresh: run 'make protos' and commit what it changes." >&2
    exit 1
fi
