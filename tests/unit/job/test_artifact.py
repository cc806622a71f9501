"""Artefacts: equal code gives equal bytes, and foreign bytes do no harm."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from turnout.job import ArtifactError, artifact
from turnout.job.artifact import marked, pack, unpack


def folder(root: Path, order: int = 1) -> Path:
    files = {"job.py": b"x = 1\n", "parts/rules.py": b"y = 2\n", "parts/ports.csv": b"JFK\n", "\u00e4.py": b""}
    for name in list(files)[::order]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(files[name])
    return root


def test_equal_code_gives_equal_bytes(tmp_path: Path) -> None:
    one, other = folder(tmp_path / "one"), folder(tmp_path / "other", -1)
    os.utime(other / "job.py", (1, 1))
    (other / "job.py").chmod(0o777)
    (other / "__pycache__").mkdir()
    (other / "__pycache__" / "job.pyc").write_bytes(b"1")
    (other / ".git").mkdir()
    (other / ".git" / "x.py").write_bytes(b"1")
    (other / "old.pyc").write_bytes(b"1")
    packed = pack(one)
    assert packed == pack(other)
    assert [name for name, _ in packed.files] == ["job.py", "parts/ports.csv", "parts/rules.py", "\u00e4.py"]
    assert packed.digest == hashlib.sha256(packed.data).hexdigest()
    (other / "job.py").write_bytes(b"x = 2\n")
    assert pack(other).digest != packed.digest


def test_the_bytes_stay_the_same_from_release_to_release(tmp_path: Path) -> None:
    """A changed digest would make a new version of every job at the next apply."""
    (tmp_path / "any.py").write_bytes(b"x = 1\n")
    assert pack(tmp_path / "any.py").digest == "c99508ab36ecf9081f7f12630f6d278366f56006ea214d116edccc10baebf67b"


def test_the_name_of_a_single_file_does_not_count(tmp_path: Path) -> None:
    for name in ("one.py", "other.py"):
        (tmp_path / name).write_bytes(b"x = 1\n")
    assert pack(tmp_path / "one.py") == pack(tmp_path / "other.py")
    assert unpack(pack(tmp_path / "one.py").data, tmp_path / "out") == tmp_path / "out" / "job.py"
    assert (tmp_path / "out" / "job.py").read_bytes() == b"x = 1\n"


def test_unpacking_gives_the_files_back(tmp_path: Path) -> None:
    packed = pack(folder(tmp_path / "in"))
    assert unpack(packed.data, tmp_path / "out") == tmp_path / "out"
    assert pack(tmp_path / "out") == packed


def test_refused_paths(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        pack(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ArtifactError, match=r"notes.txt is not a Python file"):
        pack(tmp_path / "notes.txt")
    with pytest.raises(ArtifactError, match="holds no Python file"):
        pack(tmp_path)
    (tmp_path / "job.py").symlink_to(tmp_path / "notes.txt")
    with pytest.raises(ArtifactError, match=r"job.py is a symbolic link"):
        pack(tmp_path)


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "in")
    monkeypatch.setattr(artifact, "FILES_MAX", 3)
    with pytest.raises(ArtifactError, match="more than 3 files"):
        pack(tmp_path / "in")
    monkeypatch.setattr(artifact, "ARTIFACT_BYTES_MAX", 5)
    for path in (tmp_path / "in", tmp_path / "in" / "job.py"):
        with pytest.raises(ArtifactError, match=r"the code takes .* bytes, more than 5"):
            pack(path)
    with pytest.raises(ArtifactError, match="more than 5"):
        unpack(b"123456", tmp_path / "out")


def tar(fill: Callable[[tarfile.TarFile], None]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        fill(made)
    return buffer.getvalue()


def named(name: str, kind: bytes = tarfile.REGTYPE, times: int = 1) -> bytes:
    def fill(made: tarfile.TarFile) -> None:
        for _ in range(times):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            made.addfile(member, io.BytesIO(b""))

    return tar(fill)


HOSTILE = [
    named("../evil.py"),
    named("/evil.py"),
    named("a/../../evil.py"),
    named("a\\b.py"),
    named("./evil.py"),
    named(".hidden.py"),
    named("a//b.py"),
    named("x.py", tarfile.SYMTYPE),
    named("x.py", tarfile.LNKTYPE),
    named("x.py", tarfile.FIFOTYPE),
    named("x.py", tarfile.CHRTYPE),
    named("x", tarfile.DIRTYPE),
    named("x.py", times=2),
    tar(lambda made: None),
    b"",
    b"not a tar" * 200,
    named("x.py")[:100],
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_bytes_write_nothing(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ArtifactError):
        unpack(data, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_too_many_files_in_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pack(folder(tmp_path / "in")).data
    monkeypatch.setattr(artifact, "FILES_MAX", 3)
    with pytest.raises(ArtifactError, match="more than 3 files"):
        unpack(data, tmp_path / "out")


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    packed = pack(folder(tmp_path / "in"))
    with pytest.raises(ArtifactError, match="is not empty"):
        unpack(packed.data, tmp_path / "in")


def test_marked_code_is_the_same_code_and_another_artefact(tmp_path: Path) -> None:
    packed = pack(folder(tmp_path / "in"))
    one, other = marked(packed.data, "copy 1"), marked(packed.data, "copy 2")
    assert len({packed.data, one, other}) == 3
    unpack(one, tmp_path / "out")
    files = dict(pack(tmp_path / "out").files)
    assert files.pop("job.py") == b"x = 1\n\n# copy 1\n"
    assert files == {name: content for name, content in packed.files if name != "job.py"}
