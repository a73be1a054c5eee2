"""Makes the TensorFlow Datasets `fashion_mnist` from local files, without network.

    python examples/fashion_mnist_tfds.py --tfds_dir=~/tensorflow_datasets

writes the same data set that `tfds.load("fashion_mnist")` would download and
prepare, from the four IDX files of Debian's package `dataset-fashion-mnist` or of
https://github.com/zalandoresearch/fashion-mnist. From then on every program that
loads `fashion_mnist` through TensorFlow Datasets finds it there.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import data
from absl import app, flags

_IDX_DIR = flags.DEFINE_string(
    "idx_dir",
    str(data.FASHION_MNIST_FOLDER),
    "Folder with the four IDX files, plain or gzipped.",
)
_TFDS_DIR = flags.DEFINE_string(
    "tfds_dir", "~/tensorflow_datasets", "Folder of TensorFlow Datasets."
)


def prepare_fashion_mnist(
    idx_dir: str | pathlib.Path, tfds_dir: str | pathlib.Path
) -> Any:
    """Writes the TensorFlow Datasets `fashion_mnist` from IDX files.

    Args:
        idx_dir: folder with the four IDX files, see `data.read_idx_folder`.
        tfds_dir: folder of TensorFlow Datasets, made if it does not exist. A
            `fashion_mnist` that is already there is left as it is.

    Returns:
        The `tfds.core.DatasetBuilder` of the data set.

    Raises:
        FileNotFoundError: if an IDX file is missing.
        ValueError: if an IDX file is damaged or does not hold 28×28 images.

    Example:

    >>> prepare_fashion_mnist("/usr/share/datasets/fashion-mnist", "/tmp/tfds")
    >>> train = tfds.load("fashion_mnist", split="train", data_dir="/tmp/tfds")
    """
    arrays = data.read_idx_folder(idx_dir)
    for split in ("train", "test"):
        size = arrays[f"x_{split}"].shape[1:]
        if size != (28, 28):
            raise ValueError(
                "The images of fashion_mnist must have 28×28 pixels. "
                f"Received: size={size}, idx_dir={str(idx_dir)!r}"
            )

    import tensorflow_datasets as tfds

    # Only where the bytes come from is ours: name, version and features, and so
    # the files written, are those of the original builder. Unregistered, because
    # the name is taken by the original, which must stay the one that loads.
    class FashionMnistFromIdx(
        tfds.image_classification.FashionMNIST, skip_registration=True
    ):
        name = "fashion_mnist"

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            del dl_manager  # Its checksums are of other gzip files, same content.
            return {split: self._examples(split) for split in ("train", "test")}

        def _examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
            pairs = zip(arrays[f"x_{split}"], arrays[f"y_{split}"], strict=True)
            for index, (image, label) in enumerate(pairs):
                yield index, {"image": image[..., None], "label": int(label)}

    builder = FashionMnistFromIdx(data_dir=str(pathlib.Path(tfds_dir).expanduser()))
    builder.download_and_prepare()
    return builder


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are understood. Received: {argv[1:]}")
    try:
        builder = prepare_fashion_mnist(_IDX_DIR.value, _TFDS_DIR.value)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    print(f"fashion_mnist {builder.version} is in {builder.data_dir}")
    for name, split in builder.info.splits.items():
        print(f"  {name}: {split.num_examples} images")


if __name__ == "__main__":
    app.run(main)
