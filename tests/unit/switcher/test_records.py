"""What is kept comes back as it was."""

from services.switcher.intervals import redraw, whole
from services.switcher.records import (
    CommandKind,
    GateAnswer,
    gates_from_json,
    gates_to_json,
    route_from_json,
    route_to_json,
)
from turnout.routing import Arm, Route


def test_a_route_survives_its_json() -> None:
    drawn = redraw(whole(1, 1), {1: 3333, 2: 6667}, 2).intervals
    route = Route("flights", 2, 1, (Arm(1, 3333), Arm(2, 6667)), "salt", drawn)
    assert route_from_json("flights", route_to_json(route)) == route


def test_gates_survive_their_json() -> None:
    gates = (GateAnswer("schema", 2, False, True, ("No x.", "No y.")), GateAnswer("coverage", 2, True, False, ()))
    assert gates_from_json(gates_to_json(gates)) == gates


def test_every_command_has_words_for_people() -> None:
    assert all(kind.words and kind.words == kind.words.lower() for kind in CommandKind)
