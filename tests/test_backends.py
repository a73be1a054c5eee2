"""The core and every method on every backend, each in a process of its own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pdp_keras import methods

SUPPORT = Path(__file__).parent / "support"
# All other tests run on TensorFlow: here it only checks the scripts themselves. JAX
# compiles for most of a minute.
SLOW = pytest.mark.slow
CORE_ON = [pytest.param(b, marks=SLOW) for b in ("tensorflow", "jax", "torch")]
METHODS_ON = [pytest.param(b, marks=SLOW) for b in ("tensorflow", "jax")] + ["torch"]
# Most of the time on JAX is spent in compiling; what is compiled runs for milliseconds.
QUICK_TO_COMPILE = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)


def found_on(backend, script):
    """What a script of `tests/support` prints there."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, SUPPORT / script],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "XLA_FLAGS": QUICK_TO_COMPILE,
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("backend") == backend
    return found


def check_modes(found):
    for name, run in found.items():
        assert run["starts_equal"], name
        assert run["losses"][1] < run["losses"][0], name
        assert run["sparsity"][0] == 0, name
        assert run["difference"] <= 1e-4, name
    assert found["2:4"]["sparsity"][-1] == 0.5
    assert found["2:4"]["size_and_zeros"] == [220, 110]
    # 8 x 20 in pairs, and 20 x 3 with one output left over.
    assert found["block"]["sparsity"][-1] == round(0.6 * 120) / 120
    for name in ("residual", "layer_normalizations"):
        before, after = found[name]["parameters"]
        assert after < 0.7 * before, name
        assert found[name]["sparsity"][-1] == pytest.approx(0.5, abs=0.03), name


@pytest.mark.parametrize("backend", CORE_ON)
def test_the_core(backend):
    found = found_on(backend, "core_on_backend.py")
    for exact in ("threshold", "smallest", "groups", "blocks"):
        assert all(found.pop(exact)), exact
    check_modes(found.pop("modes"))
    assert found.pop("together") <= 1e-5
    assert found.pop("past").endswith("goes past the wrappers of ['dense']")
    for name, run in found.items():
        assert run["starts_equal"] and run["loss_falls"] and run["plain"], name
        assert run["zeros"] == round(0.6 * run["size"]), name
        assert run["sparsity"][0] == 0, name
        assert run["sparsity"][-1] == pytest.approx(0.6, abs=1 / run["size"]), name
        # XLA may sum in another order; bit for bit holds without it.
        assert run["difference"] <= (1e-6 if backend == "jax" else 0), name


@pytest.mark.parametrize("backend", METHODS_ON)
def test_every_method(backend):
    found = found_on(backend, "methods_on_backend.py")
    rows = methods.METHODS.items()
    assert found.keys() == {n for n, m in rows if "unstructured" in m.modes}
    for name, run in found.items():
        assert run["zeros"] == run["counted"], name
        assert run["learns"] or run["zeros"] == 6, name
        assert len(run["seen"]) == 8 and run["seen"][-1] == run["counted"], name
        # Weights and whatever a method trains beside them.
        assert all(run["moved"]) and run["is_finite"], name
