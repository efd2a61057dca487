"""Who may know whom: the rule of docs/architecture.md, held over every import statement."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

# room: the modules it may import, besides its own; a name stands for all below it
MAY_KNOW = {
    "app.types": [],
    "app.spec": ["app.types"],
    "app.workspace": ["app.types"],
    "app.declaration": ["app.types", "app.spec"],
    "app.logs": ["app.types"],
    "app.cluster": ["app.types", "app.logs"],
    "app.telemetry": ["app.types"],
    "app.console": [],
    "app.lineup": ["app.types", "app.workspace"],
    "app.keys": ["app.types", "app.workspace"],
    "app.data": ["app.types", "app.spec", "app.workspace", "app.declaration"],
    "app.journal": ["app.types", "app.spec", "app.workspace", "app.data"],
    "app.monitor": ["app.types", "app.spec", "app.data", "app.journal"],
    "app.model": ["app.types", "app.spec", "app.workspace", "app.data", "app.monitor.profile"],
    "app.training": ["app.types", "app.spec", "app.workspace", "app.data", "app.model"],
    "app.registry": ["app.types", "app.spec", "app.workspace"],
    "app.serving": [
        "app.types",
        "app.spec",
        "app.workspace",
        "app.telemetry",
        "app.logs",
        "app.lineup",
        "app.keys",
        "app.cluster",
        "app.console",
        "app.data.features",
        "app.data.moments",
        "app.journal",
        "app.monitor.binning",
        "app.model.runtime",
        "app.model.bundle",
    ],
    "app.decisions": [
        "app.types",
        "app.spec",
        "app.workspace",
        "app.declaration",
        "app.telemetry",
        "app.logs",
        "app.lineup",
        "app.registry",
        "app.data",
        "app.journal",
        "app.model.bundle",
        "app.monitor",
        "app.training.baseline",
        "app.training.bootstrap",
        "app.training.evidence",
        "app.training.resources",
    ],
    "app.replay": ["app.types", "app.spec", "app.data", "app.declaration"],
    "app.batch": [
        "app.types",
        "app.spec",
        "app.workspace",
        "app.data",
        "app.telemetry",
        "app.model",
        "app.serving.arrow_codec",
    ],
    "app.pipeline": ["app"],
    "app.retraining": ["app"],
    "app.compression": ["app"],
    "app.tuning": ["app"],
    "app.backtest": ["app"],
    "jobs": ["app"],
    "examples": ["app"],
    "benchmarks": ["app"],
}
# library: the only places that may import it at all, and those that may do so when they are themselves imported
ANYWHERE_IN = {
    "mlflow": ["app.registry"],
    "optuna": ["app.training"],
    "torch": ["app.model.network", "app.model.export", "app.model.card", "app.training"],
    "lightgbm": ["app.training.baseline", "app.decisions.probe"],
    "opentelemetry": ["app.telemetry"],
}
AT_IMPORT_IN = {
    "mlflow": [],
    "opentelemetry": [],
    "ray": ["app.serving", "app.training", "app.telemetry"],
    "matplotlib": ["app.model.card", "app.model.plots"],
}
CODE_AS_DATA = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
LOADS_CODE = {"torch.load", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"}


class Import(NamedTuple):
    """One module that another imports; `late` when only a function's body or a type checker does."""

    importer: str
    imported: str
    late: bool


def modules(root: Path, *packages: str) -> dict[str, ast.Module]:
    """Return the parsed modules by dotted name."""
    found = {}
    for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


def imports(name: str, tree: ast.Module, known: dict[str, ast.Module]) -> Iterator[Import]:
    def visit(node: ast.AST, late: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(name, alias.name, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative imports hide who is known"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield Import(name, inner if inner in known else str(node.module), late)
        late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_type_checking(node)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, late)

    yield from visit(tree, False)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def within(module: str, places: list[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def room_of(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "app" else parts[0]


def complaints(found: dict[str, ast.Module]) -> list[str]:
    """Return every import that breaks the rule."""
    broken = []
    for name, tree in found.items():
        room = room_of(name)
        if name == "app":
            continue
        for one in imports(name, tree, found):
            ours = one.imported.split(".")[0] in {"app", "jobs", "examples", "benchmarks"}
            if ours and not within(one.imported, [room, *MAY_KNOW.get(room, [])]):
                broken.append(f"{name} knows {one.imported}")
            if room_of(one.importer).startswith("app"):
                library = one.imported.split(".")[0]
                if not within(name, ANYWHERE_IN.get(library, [name])):
                    broken.append(f"{name} imports {one.imported}")
                if not one.late and not within(name, AT_IMPORT_IN.get(library, [name])):
                    broken.append(f"{name} imports {one.imported} when it is imported")
            if one.imported.split(".")[0] in CODE_AS_DATA:
                broken.append(f"{name} imports {one.imported}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in LOADS_CODE:
                broken.append(f"{name}:{node.lineno} calls {ast.unparse(node.func)}")
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                broken.append(f"{name} speaks of allow_pickle")
    return broken


def circle(found: dict[str, ast.Module]) -> list[str]:
    """Return a circle of modules that import each other while being imported, if there is one."""
    graph = {
        name: {one.imported for one in imports(name, tree, found) if not one.late and one.imported in found} - {name}
        for name, tree in found.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.fixture(scope="module")
def project() -> dict[str, ast.Module]:
    return modules(ROOT, "app", "jobs", "examples")


def test_every_room_knows_only_whom_it_may(project):
    assert complaints(project) == []


def test_no_modules_import_each_other_in_a_circle(project):
    assert circle(project) == []


def test_every_room_stands_in_the_table(project):
    assert {room_of(name) for name in project} - set(MAY_KNOW) == {"app"}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("app.serving.endpoint", {"torch", "mlflow", "lightgbm", "ray.train", "ray.data", "app.training"}),
        ("app.model.runtime", {"torch", "mlflow", "lightgbm", "ray", "app.training"}),
        ("app.model.bundle", {"torch", "mlflow", "lightgbm", "ray", "app.training"}),
        ("app.declaration", {"torch", "mlflow", "ray"}),
    ],
)
def test_what_a_replica_loads_stays_light(module, unwanted):
    """In truth, not by reading: what is in sys.modules once the module is imported."""
    program = f"import sys, {module}; print(*sorted({unwanted!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_no_job_imports_ray_before_the_environment_is_set(project):
    """Ray reads RAY_AUTH_MODE when it is imported: a head that is told later finds no token, and dies."""
    jobs = ", ".join(name for name in project if name.startswith("jobs."))
    program = f"import sys, {jobs}; print('ray' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("app/data/x.py", "import jobs.train", "app.data.x knows jobs.train"),
        ("app/serving/x.py", "def f():\n    from app.training import gate", "app.serving.x knows app.training.gate"),
        ("app/serving/x.py", "from app.data.fit import fit", "app.serving.x knows app.data.fit"),
        ("app/serving/x.py", "import torch", "app.serving.x imports torch"),
        ("app/model/runtime.py", "import torch.nn", "app.model.runtime imports torch.nn"),
        ("app/registry/x.py", "import mlflow", "app.registry.x imports mlflow when it is imported"),
        ("app/data/x.py", "from ray import data", "app.data.x imports ray when it is imported"),
        ("jobs/x.py", "import pickle", "jobs.x imports pickle"),
        ("app/model/network.py", "import torch\ntorch.load('x')", "app.model.network:2 calls torch.load"),
        ("jobs/x.py", "numpy.load('x', allow_pickle=True)", "jobs.x speaks of allow_pickle"),
    ],
)
def test_a_breach_is_seen(tmp_path, path, source, complaint):
    for name in ("app/training/gate.py", "app/data/fit.py", path):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / path).write_text(source)
    assert complaints(modules(tmp_path, "app", "jobs")) == [complaint]


def test_a_circle_is_seen_and_a_late_import_makes_none(tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app/one.py").write_text("from app import two")
    (tmp_path / "app/two.py").write_text("import app.one")
    assert set(circle(modules(tmp_path, "app"))) == {"app.one", "app.two"}
    (tmp_path / "app/two.py").write_text("def f():\n    import app.one")
    assert circle(modules(tmp_path, "app")) == []
