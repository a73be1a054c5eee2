"""BUILD, pyproject.toml and the design's layers agree with the imports."""

import build_file
import pytest

# Lowest first. A module may import only from the rows above its own, so modules of
# one row do not know one another and no cycle can arise.
LAYERS = (
    ("version", "compiled", "order_search", "schedules", "allocation"),
    (
        "layer_table",
        "recomputed",
        "functional_torch",
        "thresholds",
        "masked_layer",
        "masked_normalization",
        "channel_labels",
        "custom_gradient",
        "method",
        "channel_gates",
    ),
    ("functional", "temperatures", "kernels", "macs"),
    ("mode",),
    ("unstructured", "n_of_m", "channel"),
    ("modes", "pruned_weight", "structure"),
    # One file a method.
    ("stored_mask", "learned_scores", "method_pdp", "method_gmp", "method_dnw"),
    ("method_sr_ste", "method_str", "method_optg", "method_acdc", "method_rigl"),
    ("method_granet", "method_movement", "method_pofa"),
    ("channel_method", "channel_gradient"),
    ("method_nisp", "method_dcp", "method_scp"),
    ("methods",),
    ("channel_rules_base",),
    ("channel_rules_shapes", "channel_rules_kernels", "channel_rules_recurrent"),
    ("channel_rules_layers", "channel_rules_operations", "channel_rules_attention"),
    ("channel_rules_normalization", "channel_rules_hub"),
    ("channel_rules",),
    ("channel_graph",),
    ("surgery", "channel_group"),
    ("wrapper", "channel_wrapper"),
    ("state", "channel_plan"),
    ("subclassed", "schedule_run"),
    ("strip", "callbacks", "report"),
    # What ships a stripped model.
    ("tflite_file", "tflite_inputs", "output_difference", "windows", "graph_copy"),
    ("tflite_graph", "tflite_conversion", "windowed_layers"),
    ("tflite_padding", "tflite_operands"),
    ("tflite_edits",),
    ("rewrite_normalization", "rewrite_head", "rewrite_factors"),
    ("rewrite_padding", "rewrite_turn", "rewrite_preprocessing", "xnnpack"),
    ("rewrites", "plain_model", "deploy_report", "vela"),
    ("xnnpack_check", "ethos_check", "generic_check"),
    ("targets", "export_report", "tflite_encoding"),
    ("deploy", "export_arguments"),
    ("export",),
    # What chooses the layers to prune by the device.
    ("prune_target",),
    ("prune",),
    ("plot",),
)
# Who must not even come to know whom through others: deployment, for one, never
# sees a wrapper.
NEVER = {
    "export": ("wrapper", "channel_wrapper", "prune", "callbacks"),
    "deploy": ("wrapper", "channel_wrapper", "prune", "callbacks"),
    "surgery": ("wrapper", "channel_wrapper", "prune"),
    "prune": ("callbacks",),
}
FILES = sorted(build_file.python_files())


def package_deps():
    """The modules that each module of the package imports, without `__init__`."""
    prefix = f"{build_file.PACKAGE}/"
    return {
        name.removeprefix(prefix): {dep.removeprefix(prefix) for dep in target.deps}
        for name, target in build_file.wanted_targets().items()
        if name.startswith(prefix)
    }


def layer_errors(deps, layers):
    row_of = {module: row for row, modules in enumerate(layers) for module in modules}
    unplaced = [f"{module}: in no row of LAYERS" for module in deps.keys() - row_of]
    return unplaced + [
        f"{module} imports {dep}, which is no lower"
        for module, names in deps.items()
        for dep in names
        if module in row_of and row_of.get(dep, len(layers)) >= row_of[module]
    ]


def reachable(deps, start):
    found, waiting = set(), [start]
    while waiting:
        new = deps.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def disagreements(stated, wanted):
    errors = []
    for name in sorted(stated.keys() | wanted.keys()):
        if name not in stated:
            errors.append(f"{name}: no target")
        elif name not in wanted:
            errors.append(f"{name}: a target without a file")
        else:
            a, b = stated[name], wanted[name]
            errors += [f"{name}: missing dep {dep}" for dep in sorted(b.deps - a.deps)]
            errors += [f"{name}: needless dep {dep}" for dep in sorted(a.deps - b.deps)]
            if (a.rule, a.srcs) != (b.rule, b.srcs):
                errors.append(f"{name}: should be {b.rule} of {sorted(b.srcs)}")
    return errors


def test_build_matches_the_imports():
    stated = build_file.stated_targets((build_file.ROOT / "BUILD").read_text())
    assert disagreements(stated, build_file.wanted_targets()) == [], (
        "regenerate: python tests/build_file.py >BUILD"
    )


def test_arrows_follow_the_layers():
    assert layer_errors(package_deps(), LAYERS) == []


@pytest.mark.parametrize("module", NEVER)
def test_never_reaches(module):
    assert reachable(package_deps(), module).isdisjoint(NEVER[module])


@pytest.mark.parametrize("path", FILES)
def test_third_parties_are_declared(path):
    """What importing the package needs is in the core; the rest may be an extra."""
    found = build_file.imports(build_file.ROOT, path, frozenset(FILES))
    everything = build_file.declared(["test", "backends", "lint", "peers"])
    extras = {build_file.PACKAGE: [], "examples": ["examples"]}
    at_import = extras.get(path.split("/")[0], ["test", "backends", "lint"])
    assert found.required <= build_file.declared(at_import)
    assert found.optional <= everything


# The checks themselves, on a small project with a known answer.


@pytest.fixture
def project(tmp_path):
    sources = {
        "pdp_keras/__init__.py": "from pdp_keras.top import f as f\n",
        "pdp_keras/low.py": "import os, numpy as np\nfrom keras import ops\n",
        "pdp_keras/middle.py": (
            "from . import low\nimport sklearn.svm\nif TYPE_CHECKING:\n    import jax\n"
        ),
        "pdp_keras/top.py": (
            "def f():\n    from .middle import g\n    import torch\n    import low\n"
            "    importlib.import_module('pdp_keras.low')\n"
        ),
        "examples/data.py": "",
        "examples/train.py": "import data, pdp_keras\nif __name__ == '__main__': 0\n",
        "tests/conftest.py": "",
        "tests/test_top.py": "from pdp_keras import low, f\nimport train\n",
    }
    for path, text in sources.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_deps_are_found(project):
    targets = build_file.wanted_targets(project)
    assert {name: set(target.deps) for name, target in targets.items()} == {
        "pdp_keras": {"pdp_keras/top"},
        "pdp_keras/low": set(),
        "pdp_keras/middle": {"pdp_keras/low"},
        "pdp_keras/top": {"pdp_keras/middle", "pdp_keras/low"},
        "examples/data": set(),
        "examples/train": {"examples/data", "pdp_keras"},
        "tests/conftest": set(),
        "tests/test_top": {"pdp_keras", "pdp_keras/low", "examples/train"},
    }
    assert targets["tests/test_top"].rule == "py_test"
    assert targets["examples/train"].rule == "py_binary"
    assert targets["examples/data"].rule == "py_library"


def test_third_parties_are_found(project):
    files = build_file.python_files(project)
    low, middle, top = (
        build_file.imports(project, f"pdp_keras/{name}.py", files)
        for name in ("low", "middle", "top")
    )
    assert low.required == {"numpy", "keras"}
    assert (middle.required, middle.optional) == ({"scikit-learn"}, {"jax"})
    assert (top.required, top.optional) == (frozenset(), {"torch", "low"})


def test_rendered_targets_are_read_back(project):
    targets = build_file.wanted_targets(project)
    assert build_file.stated_targets(build_file.render(targets)) == targets


@pytest.mark.parametrize(
    ("cut", "put", "error"),
    [
        ('":pdp_keras/low",\n', "", "pdp_keras/top: missing dep pdp_keras/low"),
        (
            'middle.py"],\n    deps = [',
            'middle.py"],\n    deps = [":x", ',
            "pdp_keras/middle: needless dep x",
        ),
        ('name = "examples/data"', 'name = "x"', "examples/data: no target"),
        ('name = "examples/data"', 'name = "x"', "x: a target without a file"),
        ("py_binary(", "py_library(", "examples/train: should be py_binary of"),
    ],
)
def test_a_wrong_build_is_noticed(project, cut, put, error):
    wanted = build_file.wanted_targets(project)
    text = build_file.render(wanted)
    assert cut in text
    found = disagreements(build_file.stated_targets(text.replace(cut, put, 1)), wanted)
    assert any(line.startswith(error) for line in found), found


@pytest.mark.parametrize(
    ("deps", "error"),
    [
        ({"low": {"top"}, "top": set()}, "low imports top, which is no lower"),
        ({"low": {"also_low"}, "also_low": set()}, "low imports also_low"),
        ({"low": {"pdp_keras"}}, "low imports pdp_keras"),
        ({"new": set()}, "new: in no row of LAYERS"),
    ],
)
def test_a_wrong_arrow_is_noticed(deps, error):
    (found,) = layer_errors(deps, (("low", "also_low"), ("top",)))
    assert found.startswith(error)


def test_reachable_goes_through_others():
    assert reachable({"a": {"b"}, "b": {"c"}}, "a") == {"b", "c"}
