"""Prints the BUILD file that the imports of the Python files call for.

    python tests/build_file.py >BUILD

One target for each file, named like its path. Its `deps` are the project's files
that it imports anywhere, inside functions too; what it imports from elsewhere is
declared in pyproject.toml, where Bazel does not look.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "pdp_keras"
# Only what is installed under another name than it is imported by.
_DISTRIBUTIONS = {"absl": "absl-py", "pquant": "pquant-ml", "sklearn": "scikit-learn"}
_HEADER = """\
# Written by `python tests/build_file.py >BUILD`, from the imports: do not edit.
# tests/test_build_file.py fails when this file and the imports disagree.
# The rules are those built into Bazel up to version 7: nothing is fetched.

package(default_visibility = ["//visibility:public"])
"""


@dataclasses.dataclass(frozen=True)
class Target:
    """One rule of the BUILD file, as far as imports decide it."""

    rule: str
    srcs: frozenset[str]
    deps: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Imports:
    """What one file imports: labels of the project, distributions of others."""

    deps: frozenset[str]
    required: frozenset[str]  # imported when the file is
    optional: frozenset[str]  # imported in functions or for type checking only


def label(path: str) -> str:
    """The target of a file: `pdp_keras/modes` of `pdp_keras/modes.py`."""
    return path.removesuffix(".py").removesuffix("/__init__")


def _nodes(node: ast.AST, deferred: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below, and whether importing the file passes it by."""
    for child in ast.iter_child_nodes(node):
        yield child, deferred
        apart = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        )
        yield from _nodes(child, deferred or apart)


def _names(path: str, node: ast.AST) -> list[str]:
    """The dotted names that `node` imports; `from a import b` may mean module a.b."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = path.split("/")[: -node.level] if node.level else []
        module = ".".join([*above, *([node.module] if node.module else [])])
        return [f"{module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        name = node.args[0] if node.args else None
        if isinstance(name, ast.Constant) and not name.value.startswith("."):
            return [name.value]
    return []


def imports(root: Path, path: str, files: frozenset[str]) -> Imports:
    """What the file at `path` imports, where `files` are the project's own."""
    # A script finds its neighbours by their bare names, and tests find the others'.
    folders = [f"{Path(path).parent.as_posix()}/", "", "examples/", "benchmarks/"]
    if path.startswith(f"{PACKAGE}/"):
        folders = [""]

    def own(name: str) -> str | None:
        parts = name.split(".")
        for end in range(len(parts), 0, -1):
            for folder in folders:
                stem = folder + "/".join(parts[:end])
                for file in (f"{stem}.py", f"{stem}/__init__.py"):
                    if file in files:
                        return file
        return None

    deps, required, optional = set(), set(), set()
    for node, deferred in _nodes(ast.parse((root / path).read_text())):
        for name in _names(path, node):
            file, top = own(name), name.split(".")[0]
            if file:
                deps.add(label(file))
            elif top not in sys.stdlib_module_names:
                distribution = _DISTRIBUTIONS.get(top, top.replace("_", "-"))
                (optional if deferred else required).add(distribution)
    return Imports(
        frozenset(deps - {label(path)}),
        frozenset(required),
        frozenset(optional - required),
    )


def python_files(root: Path = ROOT) -> frozenset[str]:
    """The files that need a target, as paths from `root`."""
    folders = ("benchmarks", "examples", "tests")
    patterns = (f"{PACKAGE}/**/*.py", *(f"{folder}/*.py" for folder in folders))
    return frozenset(
        file.relative_to(root).as_posix()
        for pattern in patterns
        for file in root.glob(pattern)
    )


def wanted_targets(root: Path = ROOT) -> dict[str, Target]:
    """The targets that the imports call for, by name."""
    files = python_files(root)
    targets = {}
    for path in sorted(files):
        srcs, rule = {path}, "py_library"
        if path.startswith("tests/test_"):
            rule = "py_test"
            srcs.add("tests/conftest.py")
        elif path.startswith(("benchmarks/", "examples/")) and (
            "__main__" in (root / path).read_text()
        ):
            rule = "py_binary"
        deps = imports(root, path, files).deps
        targets[label(path)] = Target(rule, frozenset(srcs), deps)
    return targets


def stated_targets(text: str) -> dict[str, Target]:
    """The targets in the text of a BUILD file; Starlark's calls parse as Python's."""
    targets = {}
    for statement in ast.parse(text).body:
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("py_"):
            given = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
            targets[given["name"]] = Target(
                ast.unparse(call.func),
                frozenset(given["srcs"]),
                frozenset(dep.removeprefix(":") for dep in given.get("deps", ())),
            )
    return targets


def render(targets: dict[str, Target]) -> str:
    """The text of a BUILD file, laid out as Bazel's formatter does."""
    rules = [_HEADER]
    for name, target in targets.items():
        given: dict[str, str | list[str]] = {"name": name, "srcs": sorted(target.srcs)}
        if name == PACKAGE:
            given["data"] = [f"{PACKAGE}/py.typed"]
        if target.rule == "py_test":
            given["args"] = [f"{name}.py"]
            given["main"] = "tests/conftest.py"
        if target.rule == "py_binary":
            given["main"] = f"{name}.py"
        if target.deps:
            given["deps"] = [f":{dep}" for dep in sorted(target.deps)]
        lines = [f"    {key} = {_starlark(value)},\n" for key, value in given.items()]
        rules.append(f"{target.rule}(\n{''.join(lines)})\n")
    return "\n".join(rules)


def _starlark(value: str | list[str]) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if len(value) == 1:
        return f'["{value[0]}"]'
    return "[\n" + "".join(f'        "{item}",\n' for item in value) + "    ]"


def declared(extras: list[str], root: Path = ROOT) -> frozenset[str]:
    """The distributions that pyproject.toml declares: the core's and the extras'."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"]]
    waiting = list(extras)
    names = set()
    while groups:
        for requirement in groups.pop():
            match = re.match(r"([\w.-]+)(?:\[([\w,]+)\])?", requirement)
            assert match, requirement
            if match[1] == project["name"]:
                waiting += match[2].split(",")
            names.add(match[1].lower().replace("_", "-"))
        while waiting:
            groups.append(project["optional-dependencies"][waiting.pop()])
    return frozenset(names)


if __name__ == "__main__":
    print(render(wanted_targets()), end="")
