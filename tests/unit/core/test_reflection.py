"""A process that runs one service alone can describe it to whoever asks by reflection: its stubs are all loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own: in this one other tests have loaded the stubs of every service.
PROGRAM = """
import importlib
import sys

from google.protobuf import descriptor_pool

from core.rpc.server import ServiceApp

importlib.import_module(f"services.{sys.argv[1]}.app")
(app,) = ServiceApp.__subclasses__()
(name,) = app.service_names
assert descriptor_pool.Default().FindServiceByName(name).methods
"""


@pytest.mark.parametrize("service", ["registry", "replayer", "switcher", "query"])
def test_a_service_alone_knows_its_own_description(service: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, service], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
