"""The wheel installs into an empty environment, and says all that it needs."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import warnings
import keras
import pdp_keras
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
pruned = pdp_keras.prune_model(model, 0.5)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)
    small = pdp_keras.strip_pruning(pruned)
print(pdp_keras.export_tflite(small, "model.tflite").size_bytes, pdp_keras.__file__)
"""


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_wheel_is_whole(tmp_path):
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
    run(*pip, "--wheel-dir", str(tmp_path), str(ROOT), cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"pdp_keras/py.typed", "pdp_keras/channels/rules/hub.py"} <= set(names)
    assert not [name for name in names if name.endswith("BUILD")]
    venv.create(tmp_path / "empty", with_pip=True)
    python = str(tmp_path / "empty" / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", str(wheel), cwd=tmp_path)
    assert "No broken requirements" in run(python, "-m", "pip", "check", cwd=tmp_path)
    size, path = run(python, "-c", PROGRAM, cwd=tmp_path).split()
    assert int(size) > 0 and str(tmp_path) in path
