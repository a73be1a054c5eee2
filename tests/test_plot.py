"""Plots: what is drawn, that it can be read, and that nothing global is touched."""

import dataclasses
import io
import itertools
import sys

import keras
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pdp_keras import plot
from pdp_keras.models.kernels import SkippedWeight
from pdp_keras.prune import prune_model
from pdp_keras.pruned.parts import pruned_weights
from pdp_keras.report import ReportRow, SparsityReport, sparsity_report
from pdp_keras.strip import strip_pruning

HISTORY = {
    "accuracy": [0.5, 0.7, 0.8],
    "loss": [2.0, 1.0, 0.5],
    "val_accuracy": [0.4, 0.6, 0.7],
    "val_loss": [2.1, 1.2, 0.7],
    "sparsity": [0.0, 0.45, 0.9],
}


def make_report(layers, skipped=0, name="block_{}_expand_convolution"):
    rows = [
        ReportRow(
            layer=name.format(i),
            weight="kernel",
            shape=(3, 3, 8, 8),
            size=576 * 10 ** (i % 5),
            target=0.9,
            sparsity=(i % 10) / 10,
            zeros=0,
            threshold=0.1,
        )
        for i in range(layers)
    ]
    dense = [
        SkippedWeight(f"depthwise_{i}", "kernel", (3, 3, 8, 1), 72, "depthwise")
        for i in range(skipped)
    ]
    biases = [SkippedWeight("dense", "bias", (8,), 8, "not a kernel")]
    return SparsityReport("model", tuple(rows), (*dense, *biases))


@pytest.fixture
def pruned():
    model = keras.Sequential(
        [
            keras.Input((6, 5)),
            keras.layers.LSTM(8, name="lstm"),
            keras.layers.Dense(20, name="dense"),
            keras.layers.Dense(3, name="logits"),
        ]
    )
    model = prune_model(
        model, sparsity=0.5, allocation="uniform", filters=["lstm", "dense"]
    )
    for weight in pruned_weights(model):
        weight.zeros.assign(weight.target_zeros)
    return model


def extents(figure, texts):
    renderer = FigureCanvasAgg(figure).get_renderer()
    return [text.get_window_extent(renderer) for text in texts]


def drawn(figure):
    """Draws, so that the layout is final; also proves that it can be saved."""
    figure.savefig(io.BytesIO(), format="png")
    return figure


def line(ax, label):
    return next(found for found in ax.lines if found.get_label().startswith(label))


@pytest.mark.parametrize("layers", [1, 5, 50])
def test_sparsity_labels_do_not_overlap(layers):
    figure = drawn(plot.plot_sparsity(make_report(layers, skipped=3)))
    (ax,) = figure.axes
    numbers = [text for text in ax.texts if text.get_text().endswith("%")]
    labels = [*ax.get_yticklabels(), *numbers, *ax.get_legend().texts, ax.xaxis.label]
    assert len(numbers) == layers
    boxes = extents(figure, labels)
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1


def test_sparsity_names_with_50_layers_are_readable():
    figure = plot.plot_sparsity(make_report(50))
    assert {label.get_fontsize() for label in figure.axes[0].get_yticklabels()} == {9}


def test_sparsity_shows_the_numbers_of_the_report():
    report = make_report(5, skipped=1)
    (ax,) = plot.plot_sparsity(report).axes
    widths = [bar.get_width() for bar in ax.patches]
    assert widths[:5] == [row.sparsity for row in report.rows]
    assert list(line(ax, "target").get_xdata()) == [0.9] * 5
    assert line(ax, "overall").get_xdata()[0] == report.sparsity
    texts = [text.get_text() for text in ax.texts]
    assert "not pruned: depthwise" in texts
    assert "1 biases" in ax.get_xlabel()
    assert ax.get_yticklabels()[0].get_text() == (
        "block_0_expand_convolution  kernel  (576)"
    )


def test_sparsity_shortens_long_paths_in_the_middle():
    name = "encoder/" + "transformer_block/" * 5 + "layer_{}/query"
    (ax,) = plot.plot_sparsity(make_report(2, name=name)).axes
    first, second = (label.get_text() for label in ax.get_yticklabels())
    assert first.startswith("encoder/") and "…" in first
    assert "layer_0/query" in first and "layer_1/query" in second


def test_sparsity_of_a_model_equals_that_of_its_report(pruned):
    of_model = plot.plot_sparsity(pruned).axes[0]
    of_report = plot.plot_sparsity(sparsity_report(pruned)).axes[0]
    assert [bar.get_width() for bar in of_model.patches] == [
        bar.get_width() for bar in of_report.patches
    ]


def test_sparsity_of_a_stripped_model_has_no_targets(pruned):
    (ax,) = plot.plot_sparsity(strip_pruning(pruned)).axes
    assert not any(found.get_label() == "target" for found in ax.lines)


def test_sparsity_of_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"at least one kernel.*Received: report_or"):
        plot.plot_sparsity(make_report(0))


@pytest.mark.parametrize(
    ("size", "text"),
    [(7, "7"), (999, "999"), (1000, "1.0k"), (9951, "10k"), (999_600, "1.0M")],
)
def test_sizes_take_four_characters(size, text):
    row = dataclasses.replace(make_report(1).rows[0], size=size)
    report = SparsityReport("model", (row,), ())
    (ax,) = plot.plot_sparsity(report).axes
    assert ax.get_yticklabels()[0].get_text().endswith(f"({text})")


def test_training_has_accuracy_left_and_sparsity_right():
    figure = drawn(plot.plot_training(HISTORY))
    left, right = figure.axes
    assert [found.get_label() for found in left.lines] == ["accuracy", "val_accuracy"]
    assert list(line(right, "sparsity").get_ydata()) == HISTORY["sparsity"]
    assert list(line(left, "val_accuracy").get_xdata()) == [1, 2, 3]
    assert right.get_ylim() == (0, 1)
    labels = [text.get_text() for text in left.get_legend().texts]
    assert labels == ["accuracy", "val_accuracy", "sparsity"]


def test_training_takes_a_history_object():
    history = keras.callbacks.History()
    history.history = HISTORY
    assert len(plot.plot_training(history).axes) == 2


@pytest.mark.parametrize(
    ("keys", "shown", "axes"),
    [
        (["loss", "val_loss"], ["loss", "val_loss"], 1),
        (["sparsity"], ["sparsity"], 1),
        (["loss", "sparsity"], ["loss", "sparsity"], 2),
        (["accuracy", "loss"], ["accuracy"], 1),
    ],
)
@pytest.mark.parametrize("epochs", [1, 3])
def test_training_draws_what_there_is(keys, shown, axes, epochs):
    figure = drawn(plot.plot_training({key: HISTORY[key][:epochs] for key in keys}))
    assert len(figure.axes) == axes
    legend = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.texts] == shown


def test_training_of_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"Received: history with \['learning_rate'\]"):
        plot.plot_training({"learning_rate": [0.1]})


def test_weights_shows_threshold_and_soft_mask(pruned):
    weight = next(w for w in pruned_weights(pruned) if w.layer == "dense")
    figure = drawn(plot.plot_weights(pruned, "dense"))
    left, right = figure.axes
    threshold = float(weight.numpy_threshold())
    assert sorted(found.get_xdata()[0] for found in left.lines) == pytest.approx(
        [-threshold, threshold]
    )
    grid, mask = line(right, "soft mask").get_data()
    assert np.interp(threshold, grid, mask) == pytest.approx(0.5, abs=0.02)
    # The last patch is the band between the thresholds.
    assert sum(bar.get_height() for bar in left.patches[:-1]) == 8 * 20
    assert "dense/kernel\n160 weights" in left.get_title(loc="left")


def test_weights_without_pruning_is_a_histogram(pruned):
    stripped = strip_pruning(pruned)
    (ax,) = drawn(plot.plot_weights(stripped, "dense")).axes
    assert not ax.lines
    assert "50.0% exactly zero" in ax.get_title(loc="left")
    assert sum(bar.get_height() for bar in ax.patches) == 8 * 20 // 2
    # A dense layer of a pruned model, and one whose weights are all zero.
    assert len(plot.plot_weights(pruned, "logits").axes) == 1
    stripped.get_layer("dense").kernel.assign(np.zeros((8, 20)))
    drawn(plot.plot_weights(stripped, "dense"))


def test_weights_finds_a_kernel_by_the_end_of_its_path():
    block = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="inner")])
    model = keras.Sequential([keras.Input((4,)), block])
    title = plot.plot_weights(model, "inner").axes[0].get_title(loc="left")
    assert title.startswith(f"{block.name}/inner/kernel\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "must name a kernel of the model.*'dense/kernel'"),
        (("dense", "bias"), "must name a kernel of the model.*weight='bias'"),
        (("lstm",), "must name only one kernel.*kernel.*recurrent_kernel"),
    ],
)
def test_weights_names_what_there_is(pruned, arguments, message):
    with pytest.raises(ValueError, match=message):
        plot.plot_weights(pruned, *arguments)


def test_weights_takes_the_name_of_one_of_several(pruned):
    names = [w.name for w in pruned_weights(pruned) if w.layer == "lstm"]
    assert len(names) == 2
    for name in names:
        title = plot.plot_weights(pruned, "lstm", name).axes[0].get_title(loc="left")
        assert f"/{name}\n" in title


def test_everything_draws_on_given_axes(pruned):
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    assert plot.plot_sparsity(make_report(50), ax=left) is figure
    assert plot.plot_training(HISTORY, ax=middle) is figure
    assert plot.plot_weights(pruned, "dense", ax=right) is figure
    drawn(figure)
    assert left.patches and middle.lines and right.patches
    # 50 names in 4 inches: small, but none on top of another.
    boxes = extents(figure, left.get_yticklabels())
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))


def test_pyplot_is_not_used(monkeypatch, pruned):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    drawn(plot.plot_sparsity(pruned))
    drawn(plot.plot_training(HISTORY))
    drawn(plot.plot_weights(pruned, "dense"))


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install pdp-keras\[plot\]"):
        plot.plot_training(HISTORY)
