"""What the reference packages answered, kept in `.references/cache` so that they only run when something changed.

A folder of answers is named after everything they depend on: the command, the harness in this folder, the files it is
given, and the versions of Python and of all packages that it can import. Only the references' side is kept; this
repository's code is run and compared every time. Remove the cache to have everything computed anew.
"""

import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock

HARNESS = Path(__file__).resolve().parent
REFERENCES = HARNESS.parents[1] / ".references"
CACHE = REFERENCES / "cache"
PRINTED = "printed.txt"
KEPT_SECONDS = 3 * 24 * 3600.0  # for which answers that nobody asks for are kept; another checkout may use them


def answers_of(
    package: str,
    module: str,
    arguments: Sequence[str] = (),
    files: Mapping[str, bytes] | None = None,
    cache: Path = CACHE,
) -> Path:
    """Run a module of the harness with a reference package importable, or find what the same run left earlier.

    Args:
        package: folder in `.references` whose packages the run imports.
        module: module of this folder, such as "run"; it is started in an empty work folder.
        arguments: its command line; "." is the work folder.
        files: contents of files that it finds in its work folder, by their relative paths.
        cache: where the work folders are kept.

    Returns:
        The work folder, with what the run wrote there and, in `PRINTED`, what it printed; to be read only.

    Raises:
        AssertionError: the run failed; the message is the end of what it wrote to stderr.
    """
    command = ["-m", f"{HARNESS.name}.{module}", *arguments]
    folder = cache / f"{package}-{module}-{_key(package, command, files or {})}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):  # of test processes that need the same answers one runs the reference
        if not folder.exists():
            work = Path(tempfile.mkdtemp(prefix="running-", dir=cache))
            try:
                _run(command, REFERENCES / package, files or {}, work)
                work.rename(folder)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        os.utime(folder)
    _forget_unused(cache)
    return folder


def kept_folder(name: str, *sources: Path, cache: Path = CACHE) -> Path:
    """A folder of the cache, for what is made from these files by the packages that are installed."""
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sources]
    folder = cache / f"{name}-{_fingerprint([*digests, *_installed()])}"
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    return folder


def environment(*folders: Path) -> dict[str, str]:
    """Variables of a process that imports from these folders first, and this harness as `reference`."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*folders, HARNESS.parent)))}


def _run(command: Sequence[str], packages: Path, files: Mapping[str, bytes], work: Path) -> None:
    for path, content in files.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_bytes(content)
    command = [sys.executable, "-W", "ignore", *command]
    run = subprocess.run(command, cwd=work, env=environment(packages), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    (work / PRINTED).write_text(run.stdout, encoding="utf-8")


def _key(package: str, command: Sequence[str], files: Mapping[str, bytes]) -> str:
    parts = [*command, *_installed(), "reference", *_versions(str(REFERENCES / package))]
    sources = {path.name: path.read_bytes() for path in HARNESS.glob("*.py")}
    for name, content in sorted((sources | dict(files)).items()):
        parts += [name, hashlib.sha256(content).hexdigest()]
    return _fingerprint(parts)


def _fingerprint(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _installed() -> list[str]:
    # not of sys.path, to which packages (setuptools) add folders when they are imported
    packages = _versions(*{sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    return [platform.python_version(), platform.system(), platform.machine(), *packages]


def _versions(*folders: str) -> list[str]:
    return sorted({f"{found.name}=={found.version}" for found in importlib.metadata.distributions(path=folders)})


def _forget_unused(cache: Path) -> None:
    for path in cache.iterdir():
        try:
            if time.time() - path.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except FileNotFoundError:  # another test process was faster
            continue
