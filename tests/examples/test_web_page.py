"""The example page in a real Chromium: two files, clicks, a drawing, a screenshot."""

import importlib
import json
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
from image_models import randomized, zero_pointwise

import pdp_keras

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

litert_js = importlib.import_module("litert_js")
data = importlib.import_module("data")
mobile = importlib.import_module("mobile")
serve = importlib.import_module("serve")

pytestmark = pytest.mark.skipif(bool(litert_js.missing()), reason=litert_js.missing())

NETWORKS = ("dense", "sparse")
SAMPLE = 3


def network(channels):
    """Resizes its images as the example does; large enough for its time to matter."""
    inputs = x = keras.Input((14, 14, channels), name="image")
    x = keras.layers.Resizing(64, 64)(x)
    if channels == 1:
        x = keras.layers.Concatenate()([x, x, x])
    x = keras.layers.Conv2D(16, 3, 2, padding="same", activation="relu")(x)
    for _ in range(2):
        x = keras.layers.Conv2D(128, 1, activation="relu")(x)
        x = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
        x = keras.layers.Conv2D(32, 1)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return randomized(keras.Model(inputs, keras.layers.Dense(4)(x)))


def png(array):
    """A grey PNG of a uint8 array, by hand: no imaging library is needed for it."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
        )

    header = struct.pack(">IIBBBBB", *array.shape[::-1], 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in array)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def write_folder(folder, channels):
    """What `mobile.py` writes; returns the models and the images."""
    dense = network(channels)
    sparse = keras.models.clone_model(dense)
    sparse.set_weights(dense.get_weights())
    zero_pointwise(sparse, 0.9)
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (40, 14, 14, channels)).astype("float32") / 255
    x *= (np.arange(40) % 5 / 4).reshape(-1, 1, 1, 1).astype("float32")  # not all alike
    x = np.round(255 * x).astype("float32") / 255  # what a page can hold
    y = np.arange(40, dtype="int32") % 4
    images = data.ImageData("noise", x, y, x, y, x, y, 4)
    rows = []
    for name, model, target in (
        ("dense", dense, "generic"),
        ("sparse", sparse, "xnnpack"),
    ):
        path = folder / f"{name}.tflite"
        report = pdp_keras.export_tflite(model, path, target=target)
        rows.append(
            {
                "file": path.name,
                "size_bytes": report.size_bytes,
                "gzip_bytes": report.gzip_bytes,
            }
        )
    mobile.write_page(folder, images, rows, "Noise in four classes.")
    return {"dense": dense, "sparse": sparse}, images


def use_page(folder, tmp_path):
    """What the page showed after each step."""
    (tmp_path / "chosen.png").write_bytes(png(np.full((20, 30), 200, "uint8")))
    (tmp_path / "notes.txt").write_text("no image")
    with serve.server(folder, 0) as page:
        threading.Thread(target=page.serve_forever, daemon=True).start()
        job = {
            "chromium": litert_js.chromium(),
            "url": f"http://127.0.0.1:{page.server_port}/",
            "sample": SAMPLE,
            "image": str(tmp_path / "chosen.png"),
            "noImage": str(tmp_path / "notes.txt"),
            "screenshot": str(tmp_path / "page.png"),
        }
        (tmp_path / "job.json").write_text(json.dumps(job))
        script = str(ROOT / "tests" / "support" / "web_page.mjs")
        done = subprocess.run(
            ["node", script, str(tmp_path / "job.json")],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        page.shutdown()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_every_step_on_the_page(tmp_path, channels):
    folder = tmp_path / "models"
    folder.mkdir()
    models, images = write_folder(folder, channels)
    steps = use_page(folder, tmp_path)
    assert steps["errors"] == []
    assert steps["about"] == "Noise in four classes."

    logits = {name: np.asarray(model(images.x_test)) for name, model in models.items()}
    classes = {name: found.argmax(-1) for name, found in logits.items()}
    for name in NETWORKS:
        shown = steps["sample"][name]
        assert shown["class"] == str(classes[name][SAMPLE])
        powers = np.exp(logits[name][SAMPLE] - logits[name][SAMPLE].max())
        share = 100 * powers.max() / powers.sum()
        assert float(shown["shares"][0].split()[1]) == pytest.approx(share, abs=0.11)
        assert float(shown["latency"].removesuffix(" ms")) > 0
        kib = (folder / f"{name}.tflite").stat().st_size / 1024
        assert shown["size"].startswith(f"{kib:.0f} KiB, ")
    same = classes["dense"][SAMPLE] == classes["sparse"][SAMPLE]
    assert steps["sample"]["verdict"].startswith(
        "Both say the same" if same else "They disagree"
    )
    # A drawing and a file are other images, and say something else somewhere.
    seen = [str(steps[name]["dense"]["shares"]) for name in ("sample", "drawn", "file")]
    assert len(set(seen)) == 3
    # The file is one grey all over: what the page makes of it can be computed.
    grey = np.full((1, 14, 14, channels), 200 / 255, "float32")
    for name, model in models.items():
        expected = int(np.asarray(model(grey)).argmax())
        assert steps["file"][name]["class"] == str(expected)
    assert steps["noImage"].startswith("notes.txt is not an image")
    assert steps["sample again"]["dense"]["class"] == steps["sample"]["dense"]["class"]

    agree = int((classes["dense"] == classes["sparse"]).sum())
    right = [int((classes[name] == images.y_test).sum()) for name in NETWORKS]
    assert steps["comparison"].startswith(
        f"The same class for {agree} of 40. Right: dense {right[0]}, sparse {right[1]}."
    )
    # That the sparse kernels ran: at 90 % no noise of the machine hides them.
    dense, sparse = (
        float(part.split()[1])
        for part in steps["comparison"].split("Latency: ")[1].split(", ")[:2]
    )
    assert sparse < 0.8 * dense
    assert (tmp_path / "page.png").stat().st_size > 20_000


@pytest.mark.slow
def test_a_damaged_file_is_named_on_the_page(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    write_folder(folder, 1)
    (folder / "sparse.tflite").write_bytes(b"no model")
    steps = use_page(folder, tmp_path)
    assert steps["about"].startswith("The networks do not load: ")


@pytest.mark.parametrize("lacking", ["page.json", "dense.tflite", "sparse.tflite"])
def test_the_folder_must_be_whole(tmp_path, lacking):
    for name in {"page.json", "dense.tflite", "sparse.tflite"} - {lacking}:
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match=f"Received: .* without {lacking}"):
        serve.server(tmp_path, 0)


def test_the_port_must_be_free(tmp_path):
    for name in ("page.json", "dense.tflite", "sparse.tflite"):
        (tmp_path / name).touch()
    with serve.server(tmp_path, 0) as page:
        port = page.server_port
        with pytest.raises(OSError, match=f"must be free. Received: port={port} "):
            serve.server(tmp_path, port)


def test_only_the_page_and_the_folder_are_served(tmp_path):
    import http.client

    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("page.json", "dense.tflite", "sparse.tflite"):
        (folder / name).write_text(name)
    (tmp_path / "secret").write_text("secret")
    with serve.server(folder, 0) as page:
        threading.Thread(target=page.serve_forever, daemon=True).start()

        def get(path):
            connection = http.client.HTTPConnection("127.0.0.1", page.server_port)
            connection.request("GET", path)
            answer = connection.getresponse()
            result = answer.status, answer.read(), answer.getheader("Content-Type")
            connection.close()
            return result

        assert get("/models/page.json")[:2] == (200, b"page.json")
        assert get("/app.js")[2] == "text/javascript"
        for path in ("/models/../../secret", "/../serve.py", "/models/..%2fsecret"):
            assert get(path)[0] == 404
        page.shutdown()
