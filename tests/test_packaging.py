"""What the project says of itself to installers: dependencies, pins, versions, the README's two commands."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
REQUIREMENTS = [
    Requirement(line) for line in (*PROJECT["dependencies"], *(line for all in EXTRAS.values() for line in all))
]
# Packages that exist as source alone: installing one runs its setup.py, which may fetch anything and fail.
WITHOUT_WHEEL = {"seqeval", "rouge-score"}


def pins(file: str = "constraints.txt") -> dict[str, Version]:
    """The version of each package in a file of constraints."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    found = {}
    for line in lines:
        if line.strip() and not line.startswith("#"):
            name, version = line.split("==")
            assert canonicalize_name(name) not in found, f"{name} stands twice in {file}"
            found[canonicalize_name(name)] = Version(version)
    return found


def others() -> list[Requirement]:
    """The requirements that are not the project's own extras."""
    return [each for each in REQUIREMENTS if each.name != PROJECT["name"]]


# Extras that other versions of the core's packages go with, or that nothing of `rembert` imports.
NOT_TESTED_LOWEST = {
    *("bench", "docs", "mlflow", "ray", "search", "sentence-transformers", "test", "transformers", "wandb")
}


def test_lowest_constraints_are_the_lower_bounds() -> None:
    tested = [
        *PROJECT["dependencies"],
        *(line for name in EXTRAS if name not in NOT_TESTED_LOWEST for line in EXTRAS[name]),
    ]
    bounds = {
        canonicalize_name(requirement.name): Version(next(iter(requirement.specifier)).version)
        for requirement in map(Requirement, tested)
        if requirement.name != PROJECT["name"]
    }
    assert pins("constraints-lowest.txt") == bounds


def test_constraints_pin_every_requirement_within_its_bounds() -> None:
    versions = pins()
    assert len(others()) > 20
    for requirement in others():
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"constraints.txt does not pin {requirement.name}"
        assert version in requirement.specifier, f"constraints.txt has {version}, pyproject.toml wants {requirement}"


@pytest.mark.skipif(sys.platform != "linux", reason="constraints.txt is made on Linux")
def test_constraints_pin_what_the_requirements_require() -> None:
    """Every installed package that an installed requirement brings, at any depth, is pinned."""
    versions = pins()
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(canonicalize_name(each.name), frozenset(each.extras), "pyproject.toml") for each in others()]
    while waiting:
        name, extras, source = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # another framework, or another platform
        assert name in versions, f"constraints.txt does not pin {name}, which {source} requires"
        for line in lines:
            requirement = Requirement(line)
            applies = requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)
            )
            # Triton and CUDA belong to the build of PyTorch. What is required in one version needs no second pin.
            exact = any(each.operator == "==" for each in requirement.specifier)
            if applies and not exact and not requirement.name.startswith(("cuda-", "nvidia-", "triton")):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras), name))


def test_every_requirement_has_a_wheel() -> None:
    names = {canonicalize_name(each.name) for each in REQUIREMENTS} | set(pins())
    assert not names & WITHOUT_WHEEL


def test_every_requirement_has_a_lower_bound_and_no_upper_one() -> None:
    for requirement in others():
        assert [each.operator for each in requirement.specifier] == [">="], str(requirement)


def test_extras_name_extras_that_exist() -> None:
    own = [each for each in REQUIREMENTS if each.name == PROJECT["name"]]
    assert own
    for requirement in own:
        assert requirement.extras <= set(EXTRAS), str(requirement)


def test_readme_holds_the_two_commands_between_its_markers() -> None:
    # `.ci/run` runs what stands between them.
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^<!-- two commands -->$(.*)^<!-- end -->$", text, re.MULTILINE | re.DOTALL)
    assert block
    commands = re.findall(r"^python .*$", block[1], re.MULTILINE)
    assert commands == [
        'python -m pip install -c constraints.txt -e ".[all]" && python -m rembert demo',
        'python -m pip install -c constraints.txt -e ".[all,test]" && python -m pytest -n 2',
    ]


def test_versions_of_python_are_the_same_everywhere() -> None:
    supported = SpecifierSet(PROJECT["requires-python"])
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert classified
    assert classified == [f"3.{minor}" for minor in range(8, 30) if f"3.{minor}.99" in supported]
    assert f"Python {classified[0]} to {classified[-1]}" in (ROOT / "README.md").read_text(encoding="utf-8")
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert "python: [" + ", ".join(f'"{version}"' for version in classified) + "]" in workflow


def test_installed_metadata_has_the_version_of_the_package() -> None:
    import rembert

    try:
        installed = importlib.metadata.version("rembert")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("rembert is not installed here, only importable")
    assert installed == rembert.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(rembert.__version__)}\b", changes, re.MULTILINE)


def test_package_says_that_it_is_typed() -> None:
    assert (ROOT / "rembert" / "py.typed").exists()
    assert "Typing :: Typed" in PROJECT["classifiers"]
