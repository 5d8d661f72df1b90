"""Who may import whom: scripts the library, the library the model packages, nobody sideways or up."""

import ast
import importlib.util
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
LIBRARY = "grounded_sam2"
MODEL_PACKAGES = ("sam2", "grounding_dino", "groundingdino")
PAGE = "studio"  # on top of the library; only its script imports it
SHARED = "checkpoint_files"  # what both of these read weights and configs with
TRUNKS = "trunks"  # what both of them have under the bundled models
# what the packages may not import, of what lies in this repository
FORBIDDEN = {
    PAGE: {"grounding_dino", "groundingdino", SHARED, TRUNKS, "training", "benchmarks", "tests"},
    LIBRARY: {PAGE, "training", "benchmarks", "tests"},
    "sam2": {PAGE, LIBRARY, "grounding_dino", "training", "benchmarks", "tests"},
    "grounding_dino": {PAGE, LIBRARY, "sam2", "groundingdino", "training", "benchmarks", "tests"},
    "groundingdino": {PAGE, LIBRARY, "sam2", "training", "benchmarks", "tests"},
    SHARED: {PAGE, LIBRARY, *MODEL_PACKAGES, TRUNKS, "training", "benchmarks", "tests"},
    TRUNKS: {PAGE, LIBRARY, *MODEL_PACKAGES, SHARED, "training", "benchmarks", "tests"},
}
WITHOUT_TORCH = [
    "prompts", "images", "render", "flags", "files", "owned", "masks", "script", "video", "export", "export.formats",
    "export.images", "outputs", "effects", "batch", "track.rules", "track.object_track", "track.association",
    "track.keeper", "track.looks", "track.gallery", "track.events", "track.follower", "track.discovery",
    "track.tracking", "track.continuous",
    "track.reverse", "track.first_sight", "track.steering", "track.passes", "object_prompts", "export.object_masks",
    "detectors.base", "detectors.tiled", "detectors.dds", "weights.download", "session",
    "session.interaction", "session.reopen", "doubts", "score", "score.__main__",
]  # fmt: skip
# what editing sessions may import of the library; scripts build on them, and nothing within it does
SESSION_BUILDS_ON = {
    "session", "detectors.base", "doubts", "effects", "export", "files", "images", "masks", "owned", "render", "track",
    "video", "weights",
}  # fmt: skip
# what is imported from a shorter or former path → where it is
SHORT_PATHS = {
    "grounded_sam2.continuous:ContinuousTracker": "grounded_sam2.track.continuous",
    "grounded_sam2.florence2:Florence2": "grounded_sam2.detectors.florence2.model",
    "grounded_sam2.detectors.florence2:Florence2Detector": "grounded_sam2.detectors.florence2.detector",
    "grounded_sam2.video:open_frames": "grounded_sam2.video",
    "grounded_sam2.export:read_json": "grounded_sam2.export.annotations",
    "grounded_sam2.export:read_frame_annotations": "grounded_sam2.export.annotations",
}


@cache
def modules_of(package: str) -> dict[str, Path]:
    """The modules of a package by name, the package itself among them."""
    found = {}
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(name: str, path: Path) -> Iterator[tuple[str, str | None]]:
    """What a module imports, anywhere in it: the module, and the name taken from it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from ((origin, alias.name) for alias in node.names)


@pytest.mark.parametrize("package", [PAGE, LIBRARY, *MODEL_PACKAGES, SHARED, TRUNKS])
def test_no_package_imports_sideways_or_up(package: str) -> None:
    for name, path in modules_of(package).items():
        for imported, _ in imports_of(name, path):
            top = imported.partition(".")[0]
            assert top not in FORBIDDEN[package] and not top.startswith("grounded_sam2_"), f"{name} imports {imported}"


def test_sessions_lie_on_top_of_the_library() -> None:
    room = f"{LIBRARY}.session"
    for name, path in modules_of(LIBRARY).items():
        for imported, _ in imports_of(name, path):
            if name == room or name.startswith(f"{room}."):
                within = imported.removeprefix(f"{LIBRARY}.")
                is_allowed = any(within == part or within.startswith(f"{part}.") for part in SESSION_BUILDS_ON)
                assert is_allowed or not imported.startswith(LIBRARY), f"{name} imports {imported}"
            else:
                assert not imported.startswith(room), f"{name} imports {imported}"


@pytest.mark.parametrize("package", [LIBRARY, PAGE])
def test_modules_import_each_other_in_no_circle(package: str) -> None:
    modules = modules_of(package)
    imported = {
        name: {
            full if taken is not None and (full := f"{origin}.{taken}") in modules else origin
            for origin, taken in imports_of(name, path)
            if origin in modules
        }
        for name, path in modules.items()
    }
    list(TopologicalSorter(imported).static_order())  # raises CycleError


@pytest.mark.parametrize("package", [LIBRARY, PAGE])
def test_no_private_name_crosses_modules(package: str) -> None:
    for name, path in modules_of(package).items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        aliases = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        for imported, taken in imports_of(name, path):
            is_private = (taken or "").startswith("_") and not (taken or "").startswith("__")
            assert not (imported.startswith((LIBRARY, PAGE)) and is_private), f"{name} takes {taken} from {imported}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
                is_private = node.attr.startswith("_") and not node.attr.startswith("__")
                assert not is_private, f"{name} reaches for {ast.unparse(node)}"


def test_only_its_script_imports_the_page() -> None:
    for path in [*REPOSITORY.glob("*.py"), *(REPOSITORY / "training").rglob("*.py")]:
        imported = {origin.partition(".")[0] for origin, _ in imports_of(path.stem, path)}
        assert PAGE not in imported or path.name == "grounded_sam2_app.py", path


def test_rooms_load_without_torch() -> None:
    names = [f"{LIBRARY}.{name}" for name in WITHOUT_TORCH]
    code = f"""
        import importlib, sys
        sys.modules["torch"] = None  # an import of it fails
        for name in {names}:
            importlib.import_module(name)
        assert "transformers" not in sys.modules
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert ended.returncode == 0, ended.stderr


def test_importing_the_library_loads_nothing_heavy() -> None:
    code = f"import sys; before = set(sys.modules); import {LIBRARY}; print(*sorted(set(sys.modules) - before))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    loaded = [name for name in ended.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names]
    assert loaded == [LIBRARY, "sam2", "sam2.cores"]  # what threads are told before PyTorch is loaded


@pytest.mark.parametrize("package", [name for name, path in modules_of(LIBRARY).items() if path.name == "__init__.py"])
def test_what_a_package_offers_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert all(hasattr(module, name) for name in getattr(module, "__all__", []))


@pytest.mark.parametrize(("short_path", "place"), SHORT_PATHS.items())
def test_short_paths_lead_to_the_same_thing(short_path: str, place: str) -> None:
    module, _, name = short_path.partition(":")
    assert getattr(importlib.import_module(module), name) is getattr(importlib.import_module(place), name)


COMMANDS = ("grounded_sam2.download", "grounded_sam2.export_formats", "grounded_sam2.effects", "grounded_sam2.score")


@pytest.mark.parametrize("module", COMMANDS)
def test_commands_of_the_readme_run(module: str) -> None:
    command = [sys.executable, "-m", module, "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert ended.returncode == 0 and "usage:" in ended.stdout and ended.stderr == ""
