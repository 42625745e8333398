"""The arrows of the design: which part may import which."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("lightning_mav", "callbacks", "eval")
NETWORKS, DATA = "lightning_mav.networks", "lightning_mav.data"
MODELS, STAGES = "lightning_mav.models", "lightning_mav.stages"
EDGES = ("lightning_mav.cli", "lightning_mav.commands", "lightning_mav.__main__")
FORBIDDEN = {
    "lightning_mav": ("callbacks", "eval"),
    "lightning_mav/networks": (MODELS, STAGES, DATA, "lightning_mav.diffusion", "lightning", *EDGES),
    "lightning_mav/diffusion": (MODELS, STAGES, DATA, NETWORKS, "lightning", *EDGES),
    "lightning_mav/data": (STAGES, MODELS, NETWORKS, "lightning", *EDGES),
    "lightning_mav/models": (STAGES, "lightning", *EDGES),
    "lightning_mav/stages": EDGES,
    "lightning_mav/planning": EDGES,
    "lightning_mav/checkpoint": (STAGES, *EDGES),
    "lightning_mav/pipeline.py": (STAGES, "lightning", *EDGES),
    "lightning_mav/metrics": tuple(f"lightning_mav.{p}" for p in ("networks", "models", "stages", "data", "diffusion")),
    "lightning_mav/seeding.py": OURS,
    "lightning_mav/errors.py": OURS,
    "callbacks": ("eval",),
    "eval": ("callbacks", "lightning_mav.cli"),
}
UNSAFE = ("pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "code", "runpy")
HEAVY = ("torch", "lightning", "lightning_mav.cli", "lightning_mav.stages", "lightning_mav.models")


def files(place):
    path = ROOT / place
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def imports(path, top_level_only=False):
    """Return the dotted names that a file imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name, package):
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("place", FORBIDDEN)
def test_no_arrow_points_the_wrong_way(place):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(place)
        for name in imports(path)
        for package in FORBIDDEN[place]
        if within(name, package)
    ]
    assert not wrong


@pytest.mark.parametrize(
    "path", [*files("lightning_mav/__main__.py"), *files("lightning_mav/commands")], ids=lambda p: p.stem
)
def test_verbs_import_torch_only_when_they_run(path):
    assert not [name for name in imports(path, top_level_only=True) if any(within(name, heavy) for heavy in HEAVY)]


@pytest.mark.row(5, 52)
def allowed(path):
    """Return what may be imported of pickle: DCP's own files need an unpickler, one that knows a handful of classes."""
    return {"pickle.UnpicklingError"} | ({"pickle.Unpickler"} if path.name == "sharded.py" else set())


def test_nothing_unsafe_is_loaded():
    """No pickle, no unsafe yaml, no shell; every torch.load says weights_only=True."""
    for path in (path for place in (*OURS, "tests/by_name.py") for path in files(place)):
        assert not {name for name in imports(path) if name.split(".")[0] in UNSAFE} - allowed(path), path
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name, settings = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
            assert name not in ("yaml.load", "os.system", "os.popen", "eval", "exec", "compile", "__import__"), (
                f"{path}:{call.lineno}"
            )
            assert "True" not in (settings.get("shell"), settings.get("allow_pickle")), f"{path}:{call.lineno}"
            assert name != "torch.load" or settings["weights_only"] == "True", f"{path}:{call.lineno}"
