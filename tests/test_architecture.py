"""The house keeps its walls: imports go down only, there are no circles, and importing costs little."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import studio

PACKAGE = Path(studio.__file__).parent

GROUND = frozenset(
    "types errors interfaces locks randomness reports resources schedule cameras meshes splats video prompts "
    "view_prompts ops recipes clipart".split()
)
# What each area may import besides itself. Areas of one row do not see each other.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "types": frozenset(),
    "randomness": frozenset(),
    "reports": frozenset(),
    "resources": frozenset(["errors"]),
    "locks": frozenset(["errors"]),
    "ops": frozenset(["errors", "types"]),
    "prompts": frozenset(["errors"]),
    "view_prompts": frozenset(["errors", "types", "interfaces", "prompts"]),
    "recipes": frozenset(["errors", "resources", "prompts"]),
    "schedule": frozenset(["errors", "types"]),
    "interfaces": frozenset(["types", "schedule"]),
    "cameras": frozenset(["types", "errors", "randomness", "recipes"]),
    "meshes": frozenset(["types", "errors"]),
    "splats": frozenset(["types", "errors"]),
    "video": frozenset(["errors"]),
    "clipart": frozenset(["errors", "types", "ops", "meshes"]),
    "scenes": GROUND,
    "renderers": GROUND,
    "guidance": GROUND,
    "priors": GROUND | {"renderers"},
    "export": GROUND | {"renderers", "scenes", "evaluate"},
    "run": GROUND | {"scenes", "renderers", "guidance", "priors", "export", "evaluate"},
    "evaluate": GROUND | {"scenes", "renderers", "guidance", "priors", "export", "run"},
    "jobs": GROUND | {"run", "export"},
    "web": GROUND | {"priors", "export", "run", "evaluate", "jobs", "console"},
}
ON_TOP = frozenset(
    "__init__ cli arguments commands run_commands prior_commands job_commands app_command console "
    "doctor".split()
)

HEAVY = (
    "diffusers", "transformers", "trimesh", "xatlas", "skimage", "fast_simplification", "imageio", "gradio",
    "gsplat", "nerfacc", "pytorch3d", "tinycudann", "matplotlib", "resvg_py", "svgelements", "scipy", "sympy",
    "torch._dynamo",
)  # fmt: skip


def module_name(path: Path) -> str:
    parts = ("studio", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def area(module: str) -> str:
    """The part of the house that a module belongs to: ``studio.priors.latent`` is in ``priors``."""
    return module.split(".")[1] if "." in module else "__init__"


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(module: str) -> Iterator[str]:
    """The studio's modules that ``module`` imports, wherever in the file the statement stands."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        match node:
            case ast.Import(names):
                targets = [name.name for name in names]
            case ast.ImportFrom(source, names, 0) if source is not None:
                inner = [f"{source}.{name.name}" for name in names]
                targets = [target if target in MODULES else source for target in inner]
            case ast.ImportFrom():
                pytest.fail(f"{module} has a relative import")
            case _:
                continue
        yield from (target for target in targets if target in MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    here = area(module)
    if here in ON_TOP:
        return
    assert here in MAY_IMPORT, f"say in MAY_IMPORT what studio/{here} may import"
    wrong = sorted(
        target for target in imports(module) if area(target) != here and area(target) not in MAY_IMPORT[here]
    )
    assert not wrong, f"{module} must not import {wrong}"


def test_there_are_no_circles() -> None:
    graph = {module: set(imports(module)) - {module} for module in MODULES}
    graphlib.TopologicalSorter(graph).prepare()


def loaded(names: Sequence[str], *script: str) -> list[str]:
    """Those of the names that a fresh interpreter has loaded after a script."""
    found = f"import sys; sys.stderr.write(' '.join(name for name in {names!r} if name in sys.modules))"
    code = "\n".join([*script, found])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr.split()


def test_importing_is_light() -> None:
    """Every module but the app's, without any of the heavy libraries."""
    light = [module for module in MODULES if area(module) != "web"]
    assert loaded(HEAVY, f"import {', '.join(light)}") == []


@pytest.mark.parametrize(
    "script",
    [
        "import studio.cli; studio.cli.main(['presets', 'show', 'draft'])",
        "import studio.arguments, studio.commands",
        "import studio.job_commands  # a batch's driver",
    ],
)
def test_what_computes_nothing_is_ready_without_torch(script: str) -> None:
    assert loaded(("torch", "numpy", *HEAVY), script) == []
