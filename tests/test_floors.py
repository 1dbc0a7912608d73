"""Floors: an import goes down, never up and never sideways, and each framework stays optional."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from rembert.common.errors import MissingDependencyError
from rembert.common.parameters import BASE_MODEL, HEADS
from tests.frameworks import needs, needs_pt, needs_tf

PACKAGE = Path(__file__).parent.parent / "rembert"
# What a part of the package may import beside itself and what lies outside.
BELOW = {
    "common": set(),
    "bridge": {"common"},
    "pt": {"common", "bridge"},
    "tf": {"common", "bridge"},
    "transformers": {"common", "bridge", "pt"},
    "tasks": {"common", "bridge", "pt", "tf"},
    "training": {"common", "bridge", "pt", "tf", "tasks"},
    "bleurt": {"common", "bridge", "pt", "tf", "tasks"},
    "xtreme": {"common", "bridge", "pt", "tf", "tasks", "training"},
    "scale": {"common", "bridge", "pt", "tf", "tasks", "bleurt"},
    "cli": {"common", "bridge", "pt", "tf", "tasks", "training", "bleurt", "xtreme", "scale"},
}
# Files that offer names of the floors above them, imported when they are asked for, so that users need one import.
FACADES = {"tasks/__init__.py": {"training", "bleurt"}}
PYTORCH, TENSORFLOW = {"torch"}, {"tensorflow", "keras"}
PLUG_IN = {"transformers"}
FOREIGN = {
    "common": PYTORCH | TENSORFLOW | PLUG_IN,
    "bridge": PYTORCH | TENSORFLOW | PLUG_IN,
    "pt": TENSORFLOW | PLUG_IN,
    "tf": PYTORCH | PLUG_IN,
    "transformers": TENSORFLOW,
    **dict.fromkeys(("tasks", "training", "bleurt", "xtreme", "scale", "cli"), PLUG_IN),
}


def _imports(path: Path, in_functions: bool = True) -> set[str]:
    """Every module that a file names in an import, inside functions too."""
    names = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not in_functions:
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = sorted(PACKAGE.glob("*/**/*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_lies_below_it(path: Path) -> None:
    floor = path.relative_to(PACKAGE).parts[0]
    names = _imports(path)
    ours = {name.split(".")[1] for name in names if name.startswith("rembert.")}
    offered = FACADES.get(path.relative_to(PACKAGE).as_posix(), set())
    assert ours & set(BELOW) <= BELOW[floor] | {floor} | offered
    # Below the frameworks, a function may use the one that its caller has: to make tensors, or to read a pickle.
    foreign = _imports(path, in_functions=floor in ("pt", "tf"))
    assert not {name.split(".")[0] for name in foreign} & FOREIGN.get(floor, set())


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _loaded(*modules: str) -> set[str]:
    """Which of the frameworks' packages are loaded after these imports, in a process of its own."""
    lines = "\n".join(f"import {module}" for module in modules)
    names = ("torch", "tensorflow", "keras", "transformers")
    return set(_run(f"{lines}\nimport sys\nprint(*[name for name in {names} if name in sys.modules])").split())


def test_the_ground_floors_load_no_framework() -> None:
    # Every module of them, not only what their first file imports.
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in FILES
        if path.relative_to(PACKAGE).parts[0] in ("common", "bridge")
    ]
    assert _loaded("rembert") == set()
    assert _loaded("rembert", *modules) == set()


@needs_pt
def test_pytorch_models_load_no_tensorflow() -> None:
    assert _loaded("rembert.pt") == PYTORCH


@needs_tf
def test_tensorflow_models_load_no_pytorch() -> None:
    assert _loaded("rembert.tf") == TENSORFLOW


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("pt", "torch", "pt"),
        ("tf", "tensorflow", "tf"),
        pytest.param("transformers", "transformers", "transformers", marks=needs_pt),
    ],
)
def test_a_missing_framework_names_the_extra_to_install(module: str, package: str, extra: str) -> None:
    said = _run(
        f"import sys\nsys.modules[{package!r}] = None\n"
        f"try:\n    import rembert.{module}\n"
        "except ImportError as problem:\n    print(type(problem).__name__, problem)"
    )
    assert said.startswith("MissingDependencyError")
    assert f"`{package}`" in said
    assert f"pip install 'rembert[{extra}]'" in said


@needs("torch", "transformers")
def test_an_older_transformers_is_named() -> None:
    said = _run(
        "import importlib.metadata as metadata\n"
        "own = metadata.version\n"
        "metadata.version = lambda name: '4.57.6' if name == 'transformers' else own(name)\n"
        "try:\n    import rembert.transformers\n"
        "except ImportError as problem:\n    print(type(problem).__name__, problem)"
    )
    assert said.startswith("MissingDependencyError")
    assert "`transformers>=5`, but version 4.57.6 is installed" in said


@needs_tf
def test_another_backend_of_keras_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.delitem(sys.modules, "rembert.tf", raising=False)
    with pytest.raises(ImportError, match="KERAS_BACKEND=tensorflow"):
        importlib.import_module("rembert.tf")


@needs_pt
@needs_tf
def test_one_import_line_serves() -> None:
    import rembert
    import rembert.pt
    import rembert.tf

    for name in ("RemBertConfig", "RemBertTokenizer", "RemBertTokenizerFast"):
        assert getattr(rembert, name) is getattr(rembert.pt, name) is getattr(rembert.tf, name)


def _names_of_heads(path: Path) -> list[str]:
    """Where a file names a head, other than in a declaration: `head` or `name` of a class, `HEAD` of a package."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    declared = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id in ("head", "name", "HEAD") for target in node.targets)
    }
    found = [
        node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in {*HEADS} - {BASE_MODEL}
    ]
    return [f"{path}:{node.lineno} {node.value}" for node in found if id(node) not in declared]


def test_heads_are_declared_and_not_compared() -> None:
    # A comparison with a head's name is a property that its declaration lacks.
    files = [path for path in FILES if path != PACKAGE / "common" / "parameters.py"]
    assert not [each for path in files for each in _names_of_heads(path)]


# The only files that may use a private name of another library; each says what for, and what happens without it.
INTERNALS = {
    PACKAGE / "pt" / "torch_internals.py",
    PACKAGE / "tf" / "keras_internals.py",
    PACKAGE / "transformers" / "transformers_internals.py",
}
ALL_FILES = sorted(PACKAGE.rglob("*.py"))
# argparse has no other name for what `add_subparsers` returns, pickle none for its reader in Python.
_STANDARD = {"_SubParsersAction", "_Unpickler"}
_BY_STRING = {"getattr", "setattr", "hasattr", "delattr", "attrgetter"}


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@functools.cache
def _own_private_names() -> set[str]:
    """What this library defines itself, outside `INTERNALS`."""
    names: set[str] = set()
    for path in set(ALL_FILES) - INTERNALS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                    names.add(name)
                case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                    names.add(name)
    return {name for name in names if _is_private(name)}


def _foreign_private_names(path: Path, own: set[str]) -> set[str]:
    """Private names of other libraries that a file imports, reads, or hands to `getattr` and its like."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.ImportFrom(module=module, names=aliases) if module and not module.startswith("rembert"):
                found |= {f"{module}.{alias.name}" for alias in aliases}
            case ast.Import(names=aliases):
                found |= {alias.name for alias in aliases}
            case ast.Attribute(attr=name):
                found |= {name} - own
            case ast.Call(func=ast.Name(id=function) | ast.Attribute(attr=function), args=arguments):
                if function in _BY_STRING:
                    found |= {str(each.value) for each in arguments if isinstance(each, ast.Constant)} - own
    internal = ("keras.src", "tensorflow.python", "tensorflow.compiler", "torch._")
    return {
        name
        for name in found
        if name.startswith(internal) or name == "__internal__" or any(map(_is_private, name.split(".")))
    }


@pytest.mark.parametrize("path", ALL_FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_private_names_of_other_libraries_live_in_one_file_each(path: Path) -> None:
    found = _foreign_private_names(path, _own_private_names()) - _STANDARD
    assert bool(found) == (path in INTERNALS), found


def _check_no_private_override(module: str, foreign: set[str]) -> None:
    """No class of this library takes a private name that a class of `foreign` above it has."""
    for path in sorted((PACKAGE / module).rglob("*.py")):
        if path in INTERNALS:
            continue
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        try:
            defined = vars(importlib.import_module(name))
        except MissingDependencyError:  # it needs another package than the framework
            continue
        for kind in defined.values():
            if not isinstance(kind, type) or kind.__module__ != name:
                continue
            bases = [base for base in kind.__mro__ if base.__module__.split(".")[0] in foreign]
            own = {each for each, value in vars(kind).items() if _is_private(each) and inspect.isroutine(value)}
            taken = {each for each in own if any(each in vars(base) for base in bases)}
            assert not taken, f"{name}.{kind.__name__}"


@needs_pt
def test_no_private_method_of_pytorch_is_overridden() -> None:
    _check_no_private_override("pt", PYTORCH)


@needs("torch", "transformers")
def test_no_private_method_of_transformers_is_overridden() -> None:
    _check_no_private_override("transformers", PYTORCH | PLUG_IN)


@needs("torch", "transformers")
def test_transformers_and_pytorch_models_have_no_private_name_in_common() -> None:
    # Both are base classes of one class: the one would take the other's name for its own.
    from transformers import PreTrainedModel

    from rembert.pt import RemBertPreTrainedModel

    ours = {name for base in RemBertPreTrainedModel.__mro__ if "rembert" in base.__module__ for name in vars(base)}
    assert not {name for name in ours if _is_private(name)} & set(dir(PreTrainedModel)) - {"_apply"}


@needs_tf
def test_no_private_method_of_keras_is_overridden() -> None:
    _check_no_private_override("tf", TENSORFLOW)
