"""The tree of commands: what is refused before a service is asked, how it is said, and that docs/cli.md has it all."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from turnout.cli.app import main
from turnout.cli.commands.dev import run_in_foreground
from turnout.cli.exits import ExitCode
from turnout.cli.tree import app
from turnout.rollout_file import parse, template
from turnout.rollouts import TEMPLATES

REPOSITORY = Path(__file__).resolve().parents[3]
DOCS = (REPOSITORY / "docs" / "cli.md").read_text()


@pytest.fixture(autouse=True)
def _nothing_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("TURNOUT_TARGET", "TURNOUT_KAFKA", "COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def _commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(name, command) of every command, groups left out."""
    found = typer.main.get_command(app) if group is None else group
    for name, one in getattr(found, "commands", {}).items():
        if hasattr(one, "commands"):
            yield from _commands(one, (*path, name))
        else:
            yield " ".join((*path, name)), one


COMMANDS = dict(_commands())


def test_the_commands() -> None:
    assert sorted(COMMANDS) == [
        "apply",
        "audit",
        "capacity set",
        "capacity show",
        "check",
        "compare",
        "comparisons",
        "cutover",
        "decisions list",
        "decisions replay",
        "decisions show",
        "dev",
        "estimate",
        "experiment create",
        "experiment list",
        "experiment resume",
        "experiment show",
        "experiment stop",
        "experiment watch",
        "explain",
        "produce",
        "read",
        "retire",
        "rollback",
        "rollout abort",
        "rollout list",
        "rollout pause",
        "rollout plan",
        "rollout promote",
        "rollout resume",
        "rollout show",
        "rollout start",
        "rollout watch",
        "run pause",
        "run priority",
        "run rate",
        "run resume",
        "run stop",
        "run watch",
        "shadow set",
        "shadow show",
        "shadow stop",
        "show",
        "traffic require",
        "traffic set",
        "traffic show",
        "unretire",
    ]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_and_takes_the_shared_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(*name.split(), "--help") == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    for option in ("--output", "--target", "--actor", "--timeout"):
        assert option in said


EXPERIMENT = ("experiment", "create", "j", "rounding", "v1=95", "v2=5")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shwo"], "Did you mean 'show'"),
        (["show", "--histroy"], "--history"),
        (["cutover"], "Missing argument"),
        (["cutover", "j"], "Write a job and its version"),
        (["cutover", "j=v2", "k=v3", "j=v3"], "j is given twice"),
        (["cutover", "j=v2", "k"], "'k' is not a job with its version"),
        (["cutover", "j", "v1", "--require-gates", "schema"], "schema needs no demand"),
        (["cutover", "j", "vx"], "write v2 or 2"),
        (["cutover", "j", "v1", "--override-gates", "catchup"], "did you mean catch-up?"),
        (
            ["traffic", "require", "j"],
            "Name the gates to demand of every change, or give --none to demand none any more.",
        ),
        (["traffic", "set", "j", "v1=90", "v2=11"], "The shares sum to 101 %, not to 100 %: 90 % + 11 %."),
        (["show", "--history"], "of one job's route"),
        (["read", "j"], "Name one row"),
        (["read", "j", "UA", "--key", "carrier=UA"], "Name one row"),
        (["read", "j", "UA", "--scan"], "leave out the key"),
        (["read", "j", "UA", "--limit", "3"], "belong to --scan"),
        (["read", "j", "--scan", "--order-by", "a:down"], "is not an order"),
        (["compare", "j", "v1"], "Name two versions"),
        (["compare", "j", "v1", "--resume", "0123456789ab"], "leave out the versions"),
        (["compare", "j", "--resume", "0123456789ab", "--sample", "10"], "--hold, --allow-unaligned and --range-rows"),
        (["compare", "j", "--resume", "0123456789ab", "--hold", "2s"], "--hold, --allow-unaligned and --range-rows"),
        (["compare", "j", "--resume", "0123456789ab", "--allow-unaligned"], "--hold, --allow-unaligned and"),
        (["compare", "j", "--resume", "0123456789ab", "--range-rows", "9"], "--hold, --allow-unaligned and"),
        (["check", ".", "--kafka", "127.0.0.1:1"], "are for --sample N"),
        (["read", "j", "UA", "--unit", "u", "--version", "v1"], "--version names the version that --unit would choose"),
        (["read", "j", "--scan", "--limit", "1000001"], "with -o json they come one by one"),
        (["read", "j", "--scan", "--limit", "100000001", "-o", "text"], "it is at most 100000000."),
        (
            [*EXPERIMENT, "--floor", "5"],
            "--floor is of a bandit: choose its rule (--bandit thompson or --bandit epsilon",
        ),
        ([*EXPERIMENT, "--objective", "errors", "--every", "1h"], "--objective, --every are of a bandit"),
        ([*EXPERIMENT, "--bandit-units", "5"], "--bandit-units is of a bandit"),
        ([*EXPERIMENT, "--bandit", "thompson", "--epsilon", "0.1"], "thompson has none; leave it out"),
        (
            ["experiment", "stop", "j", "rounding", "--override-gates", "schema"],
            "--override-gates is for --promote and --keep-weights",
        ),
        (["rollback", "j", "--dry-run", "--reason", "a look"], "leave it out with --dry-run"),
        ([*EXPERIMENT, "--harm", "slow"], "Without --slow DURATION no answer is slow"),
        ([*EXPERIMENT, "--harm", "slwo"], "'slwo' is no harm; did you mean slow? Choose from error, failure, n"),
        ([*EXPERIMENT, "--harm", "reward"], "'reward' is no harm"),
        ([*EXPERIMENT, "--error", "conversion"], "'conversion' is no error of a window"),
        ([*EXPERIMENT, "--units", "callers"], "--units 'callers' is none of key, caller; did you mean caller?"),
        ([*EXPERIMENT, "--holdout", "0.05"], "--holdout: '0.05' may be meant as a part of one: write 5% or 0.05%."),
        ([*EXPERIMENT, "--override", "v2"], "write a unit and its version"),
        (["compare", "j", "v1", "v2", "--range-rows", "0"], "'--range-rows': it is at least 1."),
        (["compare", "j", "v1", "v2", "--expect", "a=lots"], "'lots' is no share"),
        (["audit", "missing.py"], "does not exist"),
        ([*EXPERIMENT, "--margin", "0%"], "--margin must be above 0"),
        ([*EXPERIMENT, "--margin", "5"], "--margin: '5' is no share: write per cent with its sign, such as 10%."),
        ([*EXPERIMENT, "--margin", "0.1"], "write per cent with its sign, such as 10%"),
        ([*EXPERIMENT, "--margin", "101%"], "--margin: '101%' is too much: a share is at most 100%."),
        (["experiment", "create", "j", "e", "v1=90", "v2=10", "--units-min", "0"], "it is at least 1."),
        (["rollout", "plan", "carefull"], "did you mean careful?"),
        (["rollout", "start", "j", "--template", "bold"], "Templates are careful, normal, fast."),
        (["rollout", "start", "j", "--plan", "missing.yaml"], "does not exist"),
        (
            ["rollout", "start", "j", "--units", "callers"],
            "--units 'callers' is none of key, caller; did you mean caller?",
        ),
        (["rollout", "start", "j", "--version", "vx"], "write v2 or 2"),
        (["rollout", "start", "j", "--risk", "lots"], "--risk: 'lots' is no share"),
        (
            ["rollout", "start", "j", "--risk", "0.02"],
            "--risk: '0.02' may be meant as a part of one: write 2% or 0.02%.",
        ),
        (["rollout", "start", "j", "--units-per-day", "1m"], "'--units-per-day': it is a number."),
        (["rollout", "start", "j", "--same", "--expect", "a"], "leave out --contract, --expect"),
        (["rollout", "promote", "j", "--step", "0"], "it is at least 1."),
        (["retire", "j", "v1", "--retain-for", "soon"], "'soon' is no duration: write a number and"),
        (["show", "--timeout", "30"], "'30' is no duration (30s?)"),
        (["apply", "missing.py"], "does not exist"),
        (["run", "rate", "j", "v1", "-1"], "-1 is below 0"),
        (["run", "rate", "j", "v1", "x"], "it is a whole number."),
        (["run", "priority", "j", "v1", "-101"], "it is at least -100."),
        (["run", "priority", "j", "v1", "--lwo"], "it is a whole number."),
        (["capacity", "set"], "Nothing is to be changed"),
        (["capacity", "set", "--storage", "5XB"], "'5XB' is not a size"),
        (["apply", ".", "--priority", "-101"], "it is at least -100."),
        (["apply", ".", "--no-run", "--priority", "-1"], "leave out --workers, --rate, --priority"),
        (["apply", ".", "--workers", "0"], "'--workers': it is at least 1."),
        (["dev", "--port", "65536"], "'--port': it is at most 65535."),
        (["explain", "j", "--unit", ""], "--unit is empty"),
        (["show", "--timeout", "0s"], "longer than nothing"),
        (["show", "--target", "regisrty=h:1"], "did you mean registry?"),
        (["show", "J!"], "is not a job id"),
        (["show", "-o", "xml"], "': 'xml' is not one of 'text', 'json'"),
        (["produce", "t", "missing.csv"], "does not exist"),
    ],
)
def test_a_mistake_is_said_on_standard_error_without_a_traceback(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(*arguments) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ")
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize("option", [["-o", "json"], ["-ojson"], ["--output=json"], ["--output", "json"]])
@pytest.mark.parametrize("arguments", [["shwo"], ["cutover", "j", "vx"], ["read", "j"]])
def test_mistakes_are_json_too(arguments: list[str], option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(*arguments, *option) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["error"]["exit_code"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--target", "127.0.0.1:1", "show"],
        ["show", "--target", "127.0.0.1:1"],
        ["show", "--timeout", "200ms"],
        ["compare", "j", "v1", "v2"],
        ["compare", "j", "--resume", "0123456789ab"],
        ["comparisons", "j"],
    ],
)
def test_no_services(arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOUT_TARGET", "127.0.0.1:2")
    assert _run(*arguments) == ExitCode.UNAVAILABLE
    assert "turnout dev" in capsys.readouterr().err


def test_a_template_is_written_as_a_file_that_is_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    for name in TEMPLATES:
        assert _run("rollout", "plan", name) == ExitCode.OK
        assert parse(capsys.readouterr().out) == template(name)
    assert _run("rollout", "plan", "-o", "json") == ExitCode.OK
    assert [step["kind"] for step in json.loads(capsys.readouterr().out)["steps"]][:2] == ["REPLAY", "COMPARE"]


def test_each_mistake_in_a_plan_is_a_line_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("steps:\n  - replya\n  - traffic: half\n")
    start = ["rollout", "start", "j", "--plan", str(file)]
    assert _run(*start) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert f"{file} is no plan of a rollout." in err
    assert "line 2 (step 1): There is no step 'replya'; did you mean replay?" in err
    assert "line 3 (step 2): 'half' is no share" in err
    assert _run(*start, "-o", "json") == ExitCode.USAGE
    error = json.loads(capsys.readouterr().err)["error"]
    assert [one["type"] for one in error["violations"]] == ["line 2", "line 3"]


def test_what_may_differ_is_said_in_one_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("steps:\n  - compare:\n    contract: {}\n  - traffic: 100 %\n")
    assert _run("rollout", "start", "j", "--plan", str(file), "--same") == ExitCode.USAGE
    assert "says already what may differ" in capsys.readouterr().err
    file.write_text("steps:\n  - traffic: 100 %\n")
    assert _run("rollout", "start", "j", "--plan", str(file), "--same") == ExitCode.USAGE
    assert "compares nothing" in capsys.readouterr().err
    assert _run("rollout", "start", "j", "--plan", str(file), "--template", "fast") == ExitCode.USAGE
    assert "either --template or --plan" in capsys.readouterr().err


def test_kafka_has_to_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    assert _run("produce", "t", "a.csv") == ExitCode.USAGE
    assert "nothing says where it is" in capsys.readouterr().err


def test_a_job_file_that_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.py").write_text("import nowhere_to_be_found\n")
    for verb in ("check", "apply"):
        assert _run(verb, "job.py") == ExitCode.REFUSED
        err = capsys.readouterr().err
        assert "The job is refused: job.py:1: " in err
        assert "\nNext:  " in err


def test_check_without_services_shows_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(REPOSITORY / "examples" / "flights" / "carrier_punctuality_v2.py")
    assert _run("check", file, "--target", "127.0.0.1:1") == ExitCode.OK
    text = capsys.readouterr().out
    assert "primary key (carrier, month)" in text
    assert "Not tried in PostgreSQL, and not compared with the active version: " in text
    assert _run("check", file, "--target", "127.0.0.1:1", "-o", "json") == ExitCode.OK
    found = json.loads(capsys.readouterr().out)
    assert found["definition"]["job"] == "carrier-punctuality"
    assert (found["active_version"], found["problems"]) == (None, None)


def test_the_version_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--version") == 0
    assert re.fullmatch(r"turnout \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_a_reader_that_goes_away_is_no_error() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "turnout.cli.app", "show", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.close()
    _, err = child.communicate(timeout=30)
    assert err == b""


def test_ctrl_c_while_the_commands_are_still_being_imported() -> None:
    # The import of the commands is held up by the first module that they import; there the signal comes.
    code = """
import os, signal, sys

class Held:
    def find_spec(self, name, path=None, target=None):
        if name == "turnout.cli.tree":
            os.kill(os.getpid(), signal.SIGINT)
        return None

sys.meta_path.insert(0, Held())
from turnout.cli.app import main
main(["show"])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (ExitCode.INTERRUPTED, b"", b"")


def test_dev_says_in_json_that_it_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("-o", "json", "dev") == ExitCode.USAGE
    assert json.loads(capsys.readouterr().err)["error"]["class"] == "USAGE"


def test_the_status_of_a_child_is_passed_on() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert run_in_foreground([sys.executable, "-c", "import sys; sys.exit(3)"]) == 3
    assert run_in_foreground([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) == 128 + 9
    assert signal.getsignal(signal.SIGINT) == before


# --- docs/cli.md ------------------------------------------------------------------------------------------------------


def _section(name: str) -> str:
    found = re.search(rf"^### `turnout {re.escape(name)}`\n(.*?)(?=^##|\Z)", DOCS, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/cli.md has no section '### `turnout {name}`'"
    return found[1]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_option_is_documented_with_an_example(name: str) -> None:
    section = _section(name)
    assert re.search(rf"^\$ turnout {name}\b", section, re.MULTILINE), "no example"
    for parameter in COMMANDS[name].params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            if option.startswith("--") and option not in ("--output", "--target", "--actor", "--timeout", "--help"):
                assert f"`{option}" in section, f"{name} {option}"


def test_nothing_is_documented_that_does_not_exist() -> None:
    documented = re.findall(r"^### `turnout (.+)`$", DOCS, re.MULTILINE)
    assert sorted(documented) == sorted(COMMANDS)
    shared = {"--output", "--target", "--actor", "--timeout", "--help", "--version"}
    for name in documented:
        known = {option for one in COMMANDS[name].params for option in (*one.opts, *one.secondary_opts)} | shared
        assert set(re.findall(r"`(--[a-z-]+)", _section(name))) <= known, name


def test_the_shared_options_and_the_variables_are_documented() -> None:
    for parameter in typer.main.get_command(app).params:
        for option in parameter.opts:
            assert f"`{option}" in DOCS
    for name in ("TURNOUT_TARGET", "TURNOUT_KAFKA", "TURNOUT_TRACEBACK", "NO_COLOR"):
        assert f"`{name}`" in DOCS


def test_the_table_of_exit_codes() -> None:
    rows = re.findall(r"^\| (\d+) \| `([A-Z_]+)` \|", DOCS, re.MULTILINE)
    assert [(int(code), name) for code, name in rows] == [(int(code), code.name) for code in ExitCode]
