# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree: licences, declared dependencies, the contract's files, lazy imports."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("render", "trainer", "segmenter", "analyzer")
DISTRIBUTIONS = {
    "client": "granulo_client",
    **{f"services/{name}": f"granulo_{name}" for name in ("core", *SERVICES, "standalone")},
}
GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$")


def test_every_source_file_names_its_licence_in_the_first_line():
    expected = {
        "protos": "Apache-2.0",
        "client": "Apache-2.0",
        "services": "GPL-3.0-or-later",
        "tests": "GPL-3.0-or-later",
        "scripts": "GPL-3.0-or-later",
    }
    wrong = []
    for folder, licence in expected.items():
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix not in {".py", ".proto"} or GENERATED.search(path.name):
                continue
            lines = path.read_text().split("\n", maxsplit=2)
            first = lines[1] if lines[0].startswith("#!") else lines[0]
            if not first.endswith(f"SPDX-License-Identifier: {licence}"):
                wrong.append(str(path.relative_to(ROOT)))
    assert wrong == []


@pytest.mark.parametrize("folder", ["protos", *DISTRIBUTIONS])
def test_each_distribution_carries_its_licence(folder):
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    text = (ROOT / folder / "LICENSE").read_text()

    title = {"Apache-2.0": "Apache License", "GPL-3.0-or-later": "GNU GENERAL PUBLIC LICENSE"}
    assert title[project["license"]] in text[:200]


@pytest.mark.parametrize("folder", DISTRIBUTIONS)
def test_a_distribution_declares_everything_that_it_imports(folder):
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    declared = {
        re.split(r"[^A-Za-z0-9-]", requirement)[0].lower()
        for requirement in [*project["dependencies"], *(item for extra in extras for item in extra)]
    }
    providers = {
        module: {re.sub(r"[-_.]+", "-", name).lower() for name in names}  # PEP 503
        for module, names in importlib.metadata.packages_distributions().items()
    }
    # Namespaces of several distributions, and what TensorFlow brings along in its own version.
    providers |= {"google": {"protobuf", "googleapis-common-protos"}, "granulo": {"granulo-api"}}
    providers |= {"tensorflow": {"tensorflow-cpu"}, "keras": {"tensorflow-cpu"}}
    providers |= {name: {name.replace("_", "-")} for name in DISTRIBUTIONS.values()}
    providers |= {"mathutils": {"bpy"}}

    undeclared = set()
    for path in (ROOT / folder / DISTRIBUTIONS[folder]).rglob("*.py"):
        for module in imported_modules(ast.parse(path.read_text())):
            if module in sys.stdlib_module_names or module == DISTRIBUTIONS[folder]:
                continue
            if not providers.get(module, set()) & declared:
                undeclared.add(f"{module} ({path.relative_to(ROOT)})")
    assert undeclared == set()


def imported_modules(tree: ast.AST) -> set[str]:
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module.split(".")[0])
    return modules


def test_the_descriptor_set_has_every_proto_and_all_it_imports():
    content = (ROOT / "protos" / "granulo" / "descriptor_set.binpb").read_bytes()
    files = {file.name: file for file in FileDescriptorSet.FromString(content).file}
    protos = {str(p.relative_to(ROOT / "protos")) for p in (ROOT / "protos").rglob("*.proto")}

    assert protos <= files.keys()
    assert {name for file in files.values() for name in file.dependency} <= files.keys()


def test_nothing_of_google_is_copied_into_the_repository():
    assert not (ROOT / "protos" / "google").exists()


@pytest.mark.parametrize("service", SERVICES)
def test_importing_a_servicer_loads_neither_blender_nor_tensorflow(service):
    code = (
        f"import sys, granulo_{service}.servicer; "
        "print([name for name in ('bpy', 'tensorflow', 'keras') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert result.stdout.strip() == "[]", result.stderr


def test_make_without_a_target_lists_the_commands():
    result = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)

    listed = set(re.findall(r"^  make ([a-z-]+) ", result.stdout, re.MULTILINE))
    assert {"setup", "demo", "test", "check", "protos", "lock", "bench"} <= listed
