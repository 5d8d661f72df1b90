"""The compiled kernels of deformable attention: used where they are built, built when asked for, never needed.

    GROUNDED_SAM2_BUILD_EXT=1 pip install -e .               # the CPU kernel, built with the package
    python -m grounding_dino.groundingdino.ops.build         # built now, into the cache of PyTorch's extensions
    GROUNDED_SAM2_BUILD_EXT=1 python my_script.py            # built on first use, into the same cache
    GROUNDED_SAM2_NO_EXT=1 python my_script.py               # plain PyTorch, whatever is built

Without any of these, plain PyTorch does the work: no user should need a compiler, or wait for one, without asking for
it. Nothing here is looked for or compiled before the first call.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch

from grounding_dino.groundingdino.ops.kernel import Kernel

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

DeviceType = Literal["cpu", "cuda"]

BUILD_VARIABLE = "GROUNDED_SAM2_BUILD_EXT"
FORBID_VARIABLE = "GROUNDED_SAM2_NO_EXT"
BUILD_COMMAND = "python -m grounding_dino.groundingdino.ops.build"

_PACKAGE = "grounding_dino.groundingdino"
_SOURCES = Path(__file__).resolve().parent.parent / "csrc"
_SOURCE: dict[DeviceType, str] = {"cpu": "deformable_attention_cpu.cpp", "cuda": "deformable_attention_cuda.cu"}

_logger = logging.getLogger(__name__)
_kernels: dict[DeviceType, Kernel | None] = {}
_looking = threading.RLock()


def kernel(device_type: DeviceType) -> Kernel | None:
    """The compiled `forward` and `backward` for tensors of a device, or None where plain PyTorch is to do the work.

    The first call for a device decides for the process; where there is no kernel it says why, in one log line.
    """
    if device_type not in _kernels:
        with _looking:
            if device_type not in _kernels:
                _kernels[device_type] = _find(device_type)
    return _kernels[device_type]


def is_set(variable: str) -> bool:
    """Whether an environment variable is set to anything but 0."""
    return os.environ.get(variable, "0") not in ("", "0")


def _find(device_type: DeviceType) -> Kernel | None:
    level, reason = logging.INFO, f"{FORBID_VARIABLE} is set"
    if not is_set(FORBID_VARIABLE):
        try:
            if is_set(BUILD_VARIABLE):
                return _installed(device_type) or build(device_type)
            found = _installed(device_type) or _cached(device_type)
            if found is not None:
                return found
            reason = f"the faster kernel is not built; to build it: {BUILD_COMMAND} {device_type}"
        except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
            level = logging.WARNING
            first_line = next(iter(str(error).splitlines()), type(error).__name__)
            reason = f"the kernel cannot be used ({first_line}); to see all of it: {BUILD_COMMAND} {device_type}"
    _logger.log(level, "Deformable attention on %s runs in plain PyTorch: %s", device_type, reason)
    return None


def library_name(device_type: DeviceType) -> str:
    """The file name of a kernel without its suffix, in the package or in the cache."""
    return f"_deformable_attention_{device_type}"


def _installed(device_type: DeviceType) -> Kernel | None:
    spec = importlib.util.find_spec(f"{_PACKAGE}.{library_name(device_type)}")
    return Kernel(Path(spec.origin)) if spec is not None and spec.origin is not None else None


def _cached(device_type: DeviceType) -> Kernel | None:
    library = library_path(device_type)
    return Kernel(library) if library.exists() else None


def library_path(device_type: DeviceType) -> Path:
    """Where a build of these sources for this kind of processor or these GPUs lies in the cache."""
    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions")
    fingerprint = hashlib.sha256()
    for part in (platform.system(), platform.machine(), _gpus(device_type)):
        fingerprint.update(f"{part}\n".encode())
    for source in ("deformable_attention.h", _SOURCE[device_type]):
        fingerprint.update((_SOURCES / source).read_bytes())
    name = library_name(device_type)
    suffix = ".pyd" if sys.platform == "win32" else ".so"
    return folder / f"grounding_dino{name}_{fingerprint.hexdigest()[:12]}" / f"{name}{suffix}"


def _gpus(device_type: DeviceType) -> str:
    if device_type == "cpu":
        return ""
    found = {torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
    return f"CUDA {torch.version.cuda} {os.environ.get('TORCH_CUDA_ARCH_LIST') or sorted(found)}"


def build(device_type: DeviceType) -> Kernel:
    """Compile a kernel into the cache, unless it is there, and open it.

    Several processes may call this at once: one compiles, in a folder that only it sees, and the others wait.

    Args:
        device_type: whose kernel.

    Raises:
        ImportError, OSError, RuntimeError: there is no compiler, no CUDA toolkit, or it does not compile.
    """
    library = library_path(device_type)
    library.parent.mkdir(parents=True, exist_ok=True)
    with _alone(library.parent / "lock"):
        if not library.exists():
            with tempfile.TemporaryDirectory(dir=library.parent, ignore_cleanup_errors=True) as folder:
                _compile(device_type, folder)
                os.replace(Path(folder) / library.name, library)
    return Kernel(library)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)  # ends with the process, so that a killed build blocks nobody
        yield


def _compile(device_type: DeviceType, folder: str) -> None:
    if device_type == "cuda":
        point_torch_to_cuda()
    from torch.utils import cpp_extension

    cpp_extension.load(
        library_name(device_type),
        str(_SOURCES / _SOURCE[device_type]),
        extra_cflags=compiler_flags(),
        extra_cuda_cflags=["-O3"],
        extra_ldflags=linker_flags(),
        build_directory=folder,
        with_cuda=device_type == "cuda",
        is_python_module=False,
    )


def compiler_flags() -> list[str]:
    """For the C++ source, which chooses the instruction set when it runs, so that a build serves other machines too."""
    if sys.platform == "win32":
        return ["/O2", "/openmp"]
    vectorise = ["-O3", "-fno-math-errno", "-fno-trapping-math"]
    return vectorise if sys.platform == "darwin" else [*vectorise, "-fopenmp"]


def linker_flags() -> list[str]:
    """For the library as a whole."""
    return ["-fopenmp"] if sys.platform.startswith("linux") else []


def cuda_home() -> Path | None:
    """The folder of the CUDA toolkit, or None.

    It holds bin/nvcc and include/cuda_runtime.h. CUDA_HOME and CUDA_PATH come first; then the nvcc on the search path
    is asked where it lives, since it may be a link or a script that calls another one.
    """
    places = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    nvcc = shutil.which("nvcc")
    if nvcc is not None:
        plan = subprocess.run([nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True).stderr
        places += [Path(match) for match in re.findall(r"^#\$ TOP=(.+)$", plan, re.MULTILINE)]
        places.append(Path(nvcc).resolve().parent.parent)
    places.append(Path("/usr/local/cuda"))
    compiler = "nvcc.exe" if sys.platform == "win32" else "nvcc"
    complete = (
        place for place in places if (place / "bin" / compiler).exists() and (place / "include/cuda_runtime.h").exists()
    )
    home = next(complete, None)
    return home.resolve() if home is not None else None


def point_torch_to_cuda() -> None:
    """Have PyTorch's build tools use the toolkit that `cuda_home` finds.

    Raises:
        OSError: there is none.
        RuntimeError: this PyTorch is built without CUDA.
    """
    if torch.version.cuda is None:
        raise RuntimeError(f"PyTorch {torch.__version__} is built without CUDA")
    home = cuda_home()
    if home is None:
        raise OSError("no CUDA toolkit found; set CUDA_HOME to the folder that holds bin/nvcc")
    os.environ["CUDA_HOME"] = str(home)
    from torch.utils import cpp_extension

    cpp_extension.CUDA_HOME = str(home)  # it looked once, when it was imported
