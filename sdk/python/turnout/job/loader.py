"""Loads the one job of an artefact into this process. Loading code is running it."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import itertools
import re
import sys
import traceback
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnout.job.declare import Job
from turnout.job.errors import CAN_EXPRESS, JobDefinitionError, JobFileError

_count = itertools.count(1)
_DECORATORS = ("map", "aggregate", "fold")
_FILES_NAMED = 5  # of a folder that is not one job


@dataclass(frozen=True, slots=True)
class _Sources:
    root: Path  # the folder, or the folder of the single file
    trees: dict[str, ast.Module]  # by path inside the artefact
    folder: bool


def load(path: Path | str) -> Job[..., Any]:
    """The job of a Python file, or of a folder of them.

    A folder is loaded as a package under a fresh name, all its modules are imported, and they import one another
    relatively (`from .rules import x`); sys.path stays as it is. JobFileError says what is wrong, where, and what to
    do: a file that is not there, is not Python, or fails to import; no job, or several; a definition that is refused;
    an import that the job's requirements do not name, or that is installed in another version.
    """
    sources = _parse(Path(path).absolute())
    if sources.folder:
        _check_one_job(sources)
    package = f"turnout_job_{next(_count)}"
    try:
        modules = _import(package, sources)
        job = _the_job(modules, sources)
        _check_imports(job, sources)
    except BaseException:
        for module in [name for name in sys.modules if name == package or name.startswith(package + ".")]:
            del sys.modules[module]
        raise
    return job


def _parse(path: Path) -> _Sources:
    if path.is_dir():
        files = sorted(
            file
            for file in path.rglob("*.py")
            if not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        root = path
    else:
        files, root = [path], path.parent
    if not files:
        raise JobFileError(path.name, 0, "the folder holds no Python file", "name a .py file, or a folder of them")
    trees = {}
    for file in files:
        name = file.relative_to(root).as_posix()
        try:
            trees[name] = ast.parse(file.read_bytes(), filename=str(file))
        except OSError as error:
            raise JobFileError(
                name, 0, f"the file cannot be read: {error.strerror}", "name a .py file, or a folder of them"
            ) from None
        except SyntaxError as error:
            raise JobFileError(
                name,
                error.lineno or 0,
                f"the file is not Python: {error.msg}",
                f"mend the line; this is Python {sys.version_info.major}.{sys.version_info.minor}",
            ) from None
        except ValueError as error:
            raise JobFileError(name, 0, f"the file is not Python: {error}", "save it as UTF-8 text") from None
    return _Sources(root, trees, path.is_dir())


def _check_one_job(sources: _Sources) -> None:
    """Before a folder of many jobs, or of a whole project, is run: no advice about its imports would help there."""
    defining = [name for name, tree in sources.trees.items() if _defines_job(tree)]
    if len(defining) < 2:
        return
    named = ", ".join(defining[:_FILES_NAMED]) + (" and more" if len(defining) > _FILES_NAMED else "")
    raise JobFileError(
        sources.root.name,
        0,
        f"the folder is not one job: {len(defining)} of its files define jobs ({named})",
        "name one of these files, or a folder that holds one job",
    )


def _defines_job(tree: ast.Module) -> bool:
    """Whether the module decorates a function at its top level with map, aggregate or fold of turnout."""
    ours: set[str] = set()
    modules: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module in ("turnout", "turnout.job.declare"):
            ours |= {alias.asname or alias.name for alias in node.names if alias.name in _DECORATORS}
        elif isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == "turnout"}
    for node in tree.body:
        for decorator in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            if isinstance(called, ast.Name) and called.id in ours:
                return True
            of = called.value if isinstance(called, ast.Attribute) and called.attr in _DECORATORS else None
            if isinstance(of, ast.Name) and of.id in modules:
                return True
    return False


def _import(package: str, sources: _Sources) -> list[types.ModuleType]:
    if not sources.folder:
        (name,) = sources.trees
        module = types.ModuleType(package)
        module.__file__ = str(sources.root / name)
        sys.modules[package] = module
        with _explained(sources):
            exec(compile(sources.trees[name], module.__file__, "exec"), module.__dict__)  # noqa: S102 - loading a job
        return [module]
    parent = types.ModuleType(package)
    parent.__path__ = [str(sources.root)]
    sys.modules[package] = parent
    modules = [parent]
    importlib.invalidate_caches()
    if "__init__.py" in sources.trees:
        parent.__file__ = str(sources.root / "__init__.py")
        parent.__package__ = package
        with _explained(sources):
            exec(compile(sources.trees["__init__.py"], parent.__file__, "exec"), parent.__dict__)  # noqa: S102
    for name in sources.trees:
        if name != "__init__.py":
            dotted = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            with _explained(sources):
                modules.append(importlib.import_module(f"{package}.{dotted}"))
    return modules


class _explained:  # noqa: N801 - used as a statement
    """Turns what goes wrong inside into a JobFileError, and leaves no compiled files beside the user's."""

    def __init__(self, sources: _Sources) -> None:
        self._sources = sources

    def __enter__(self) -> None:
        self._wrote_bytecode = sys.dont_write_bytecode
        sys.dont_write_bytecode = True

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        sys.dont_write_bytecode = self._wrote_bytecode
        if isinstance(error, Exception | SystemExit):
            raise _explain(error, self._sources) from error


def _explain(error: Exception | SystemExit, sources: _Sources) -> JobFileError:
    file, line = _place(error, sources)
    if isinstance(error, JobDefinitionError):
        file, line = _definition_place(error, sources) or (file, line)
        return JobFileError(file, line, error.reason, error.remedy)
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.split(".")[0]
        if sources.folder and _is_sibling(top, sources):
            return JobFileError(
                file,
                line,
                f"the import of {top!r} finds nothing",
                f"modules of one folder import one another relatively: from .{top} import ...",
            )
        if not sources.folder and (sources.root / f"{top}.py").exists():
            return JobFileError(
                file,
                line,
                f"the file imports {top!r}, but one file is the whole artefact",
                "put both into a folder of their own and name the folder",
            )
        return JobFileError(
            file,
            line,
            f"the import of {error.name!r} finds nothing on this machine",
            "install it here and on the workers, and name it in the job's requirements=",
        )
    return JobFileError(
        file,
        line,
        f"the file does not import: {type(error).__name__}: {error}",
        "a job file only defines: mend what it runs at the top level",
    )


def _place(error: BaseException, sources: _Sources) -> tuple[str, int]:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_relative_to(sources.root):
            name = file.relative_to(sources.root).as_posix()
            if name in sources.trees:
                return name, frame.lineno or 0
    return next(iter(sources.trees)), 0


def _definition_place(error: JobDefinitionError, sources: _Sources) -> tuple[str, int] | None:
    """The line of the class, function or field that the error names."""
    for name, tree in sources.trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == error.subject:
                for inner in node.body:
                    if (
                        isinstance(inner, ast.AnnAssign)
                        and isinstance(inner.target, ast.Name)
                        and inner.target.id == error.field
                    ):
                        return name, inner.lineno
                return name, node.lineno
    return None


def _the_job(modules: list[types.ModuleType], sources: _Sources) -> Job[..., Any]:
    jobs: dict[int, Job[..., Any]] = {}
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, Job):
                jobs[id(value)] = value
    if len(jobs) == 1:
        return next(iter(jobs.values()))
    what = next(iter(sources.trees)) if not sources.folder else sources.root.name
    if not jobs:
        raise JobFileError(
            what,
            0,
            "there is no job in it",
            f"decorate a function with @map, @aggregate or @fold; what a job can express: {CAN_EXPRESS}",
        )
    names = ", ".join(sorted(repr(job.definition.job) for job in jobs.values()))
    raise JobFileError(
        what,
        0,
        f"there are {len(jobs)} jobs in it: {names}",
        "an artefact is one job: give each a file or folder of its own, and cut them over together",
    )


# --- imports ----------------------------------------------------------------------------------------------------------


def _check_imports(job: Job[..., Any], sources: _Sources) -> None:
    required = {
        _canonical(requirement.partition("==")[0]): requirement.partition("==")[2]
        for requirement in job.definition.requirements
    }
    for name, pinned in required.items():
        installed = _installed(name)
        if installed != pinned:
            have = f"has {installed}" if installed else "does not have it"
            raise JobFileError(
                next(iter(sources.trees)),
                0,
                f"the job requires {name}=={pinned}, but this Python {have}",
                f"install it here and on the workers: pip install {name}=={pinned}",
            )
    outside = [found for found in _imports(sources) if found[2] not in _INSIDE]
    if not outside:
        return
    distributions = importlib.metadata.packages_distributions()
    for file, line, top in outside:
        names = sorted({_canonical(name) for name in distributions.get(top, [top])})
        if not any(name in required for name in names):
            version = _installed(names[0])
            raise JobFileError(
                file,
                line,
                f"the file imports {top!r}, which is neither in the standard library nor in the job's requirements",
                f'name it: requirements=["{names[0]}=={version or "..."}"]',
            )


_INSIDE = sys.stdlib_module_names | {"turnout", "__future__"}


def _imports(sources: _Sources) -> Iterator[tuple[str, int, str]]:
    """(file, line, top-level module) of every absolute import, also those inside functions."""
    for name, tree in sources.trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield name, node.lineno, alias.name.split(".")[0]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield name, node.lineno, node.module.split(".")[0]


def _is_sibling(top: str, sources: _Sources) -> bool:
    return any(name in (f"{top}.py", f"{top}/__init__.py") or name.startswith(f"{top}/") for name in sources.trees)


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
