"""The code of a version as bytes: what is stored, hashed, and unpacked where it runs.

An artefact is one Python file or one folder. Its bytes are an uncompressed tar of its files, sorted by path, with every
other property (owner, mode, time) set to nothing, so that equal code gives equal bytes on any machine. Its identity is
the SHA-256 of those bytes. A single file is stored as `job.py` whatever it is called, so that renaming it makes no new
version; inside a folder the paths count. Hidden files, `__pycache__` and compiled files are left out; symbolic links
are refused, because what they point to is not part of the folder.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from turnout.job.errors import ArtifactError

ARTIFACT_BYTES_MAX = 64 << 20
FILES_MAX = 1000
SINGLE_FILE = "job.py"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A job's code. files: (path with slashes, content) sorted by path; data: the tar; digest: its SHA-256 in hex."""

    files: tuple[tuple[str, bytes], ...]
    data: bytes
    digest: str


def pack(path: Path) -> Artifact:
    """The artefact of a Python file or a folder of them. ArtifactError if it cannot be one."""
    if path.is_dir():
        files = _folder_files(path)
    elif path.is_file():
        if path.suffix != ".py":
            raise ArtifactError(f"{path.name} is not a Python file", "name a .py file, or a folder of them")
        _check_total(path.stat().st_size)
        files = [(SINGLE_FILE, path.read_bytes())]
    else:
        raise ArtifactError(f"{path} does not exist", "name a .py file, or a folder of them")
    data = _tar(files)
    _check_total(len(data))
    return Artifact(tuple(files), data, hashlib.sha256(data).hexdigest())


def unpack(data: bytes, directory: Path) -> Path:
    """Writes an artefact's files into an empty or new directory; returns the path to give to `turnout.job.load`.

    ArtifactError if the bytes are no artefact; then nothing has been written.
    """
    _check_total(len(data))
    files = _untar(data)
    if directory.exists() and any(directory.iterdir()):
        raise ArtifactError(f"{directory} is not empty", "unpack an artefact into a directory of its own")
    for name, content in files:
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return directory / SINGLE_FILE if [name for name, _ in files] == [SINGLE_FILE] else directory


def marked(data: bytes, remark: str) -> bytes:
    """The same code as another artefact: with a comment at the end of its first file. remark: one line."""
    files = _untar(data)
    name, content = next(one for one in files if one[0].endswith(".py"))
    comment = f"\n# {remark}\n".encode()
    return _tar([(one, content + comment if one == name else known) for one, known in files])


def _folder_files(folder: Path) -> list[tuple[str, bytes]]:
    found: list[tuple[str, Path]] = []
    total = 0
    pending = [folder]
    while pending:
        for entry in sorted(pending.pop().iterdir()):
            name = entry.relative_to(folder).as_posix()
            if entry.name.startswith(".") or entry.name == "__pycache__" or entry.suffix in (".pyc", ".pyo"):
                continue
            if entry.is_symlink():
                raise ArtifactError(f"{name} is a symbolic link", "put the file itself into the folder")
            if entry.is_dir():
                pending.append(entry)
            elif entry.is_file():
                total += entry.stat().st_size
                _check_total(total)
                found.append((name, entry))
            if len(found) > FILES_MAX:
                raise ArtifactError(
                    f"the folder holds more than {FILES_MAX} files", "give the job a folder with its own sources only"
                )
    if not any(name.endswith(".py") for name, _ in found):
        raise ArtifactError(f"{folder} holds no Python file", "name a .py file, or a folder of them")
    return [(name, entry.read_bytes()) for name, entry in sorted(found)]


def _check_total(size: int) -> None:
    if size > ARTIFACT_BYTES_MAX:
        raise ArtifactError(
            f"the code takes {size:,} bytes, more than {ARTIFACT_BYTES_MAX:,}",
            "leave data out of the artefact: read it from a topic",
        )


def _tar(files: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)  # a new TarInfo has no owner, and time 0
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _untar(data: bytes) -> list[tuple[str, bytes]]:
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                if not member.isreg() or member.issparse() or not _is_safe(member.name) or member.name in files:
                    raise ArtifactError(
                        f"the artefact holds {member.name!r}, which is no plain file of its own",
                        "pack it again with this version of turnout",
                    )
                content = tar.extractfile(member)
                assert content is not None
                files[member.name] = content.read()
                if len(files) > FILES_MAX:
                    raise ArtifactError(f"the artefact holds more than {FILES_MAX} files", "pack a smaller folder")
    except tarfile.TarError as error:
        raise ArtifactError(
            f"these bytes are no artefact: {error}", "fetch them again and compare the digest"
        ) from None
    if not files:
        raise ArtifactError("the artefact holds no file", "fetch it again and compare the digest")
    return sorted(files.items())


def _is_safe(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        path.as_posix() == name
        and not path.is_absolute()
        and "\\" not in name
        and "\0" not in name
        and not any(part.startswith(".") for part in path.parts)
    )
