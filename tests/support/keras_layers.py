"""How every layer class of Keras is made, and which kernels it has."""

from keras import layers

IMAGE = (2, 8, 9, 3)


SEQUENCE = (2, 5, 6)


# How to make the layers of Keras: class name to (positional arguments, input shape).
# Those that are not here need no arguments, and build on IMAGE. Sizes differ wherever
# they can, so that no axis can be taken for another.
BUILD = {
    "Activation": (("relu",), IMAGE),
    "AdaptiveAveragePooling1D": ((2,), SEQUENCE),
    "AdaptiveAveragePooling2D": ((2,), IMAGE),
    "AdaptiveAveragePooling3D": ((2,), (2, 4, 5, 6, 3)),
    "AdaptiveMaxPooling1D": ((2,), SEQUENCE),
    "AdaptiveMaxPooling2D": ((2,), IMAGE),
    "AdaptiveMaxPooling3D": ((2,), (2, 4, 5, 6, 3)),
    "Add": ((), [IMAGE, IMAGE]),
    "AdditiveAttention": ((), [SEQUENCE, SEQUENCE]),
    "AlphaDropout": ((0.5,), IMAGE),
    "Attention": (lambda: layers.Attention(use_scale=True), [SEQUENCE, SEQUENCE]),
    "Average": ((), [IMAGE, IMAGE]),
    "AveragePooling1D": ((2,), SEQUENCE),
    "AveragePooling2D": ((2,), IMAGE),
    "AveragePooling3D": ((2,), (2, 4, 5, 6, 3)),
    "Bidirectional": (lambda: layers.Bidirectional(layers.LSTM(4)), SEQUENCE),
    "CategoryEncoding": ((4,), (2, 3)),
    "CenterCrop": ((2, 2), IMAGE),
    "Concatenate": ((), [IMAGE, IMAGE]),
    "Conv1D": ((7, 2), SEQUENCE),
    "Conv1DTranspose": ((7, 2), SEQUENCE),
    "Conv2D": ((7, (2, 5)), IMAGE),
    "Conv2DTranspose": ((7, (2, 5)), IMAGE),
    "Conv3D": ((7, (2, 4, 5)), (2, 8, 9, 10, 3)),
    "Conv3DTranspose": ((7, (2, 4, 5)), (2, 8, 9, 10, 3)),
    "ConvLSTM1D": ((7, 2), (2, 5, 8, 3)),
    "ConvLSTM2D": ((7, (2, 5)), (2, 5, 8, 9, 3)),
    "ConvLSTM3D": ((7, (2, 4, 5)), (2, 5, 8, 9, 10, 3)),
    "Dense": ((7,), IMAGE),
    "DepthwiseConv1D": (
        lambda: layers.DepthwiseConv1D(2, depth_multiplier=4),
        SEQUENCE,
    ),
    "DepthwiseConv2D": (
        lambda: layers.DepthwiseConv2D((2, 5), depth_multiplier=4),
        IMAGE,
    ),
    "Discretization": ((None, 3), (2, 3)),
    "Dot": ((1,), [SEQUENCE, SEQUENCE]),
    "Dropout": ((0.5,), IMAGE),
    "EinsumDense": (("abc,cde->abde", (None, 4, 7)), SEQUENCE),
    "Embedding": ((11, 7), (2, 5)),
    "GRU": ((4,), SEQUENCE),
    "GRUCell": ((4,), (2, 6)),
    "GaussianDropout": ((0.5,), IMAGE),
    "GaussianNoise": ((0.5,), IMAGE),
    "GroupNormalization": ((3,), IMAGE),
    "GroupedQueryAttention": ((3, 4, 2), [SEQUENCE, (2, 8, 7)]),
    "HashedCrossing": ((4,), [(2,), (2,)]),
    "Hashing": ((4,), (2, 3)),
    "InputLayer": ((IMAGE[1:],), IMAGE),
    "LSTM": ((4,), SEQUENCE),
    "LSTMCell": ((4,), (2, 6)),
    "Lambda": ((abs,), IMAGE),
    "MaxNumBoundingBoxes": ((4,), IMAGE),
    "Maximum": ((), [IMAGE, IMAGE]),
    "Minimum": ((), [IMAGE, IMAGE]),
    "MultiHeadAttention": (
        lambda: layers.MultiHeadAttention(2, 3, value_dim=4, output_shape=9),
        [SEQUENCE, (2, 8, 7)],
    ),
    "Multiply": ((), [IMAGE, IMAGE]),
    "Permute": (((3, 1, 2),), IMAGE),
    "Pipeline": (([],), IMAGE),
    "RNN": (lambda: layers.RNN(layers.GRUCell(4)), SEQUENCE),
    "RandomBrightness": ((0.5,), IMAGE),
    "RandomColorDegeneration": ((0.5,), IMAGE),
    "RandomContrast": ((0.5,), IMAGE),
    "RandomCrop": ((2, 2), IMAGE),
    "RandomHue": ((0.5,), IMAGE),
    "RandomPosterization": ((4,), IMAGE),
    "RandomRotation": ((0.5,), IMAGE),
    "RandomSaturation": ((0.5,), IMAGE),
    "RandomSharpness": ((0.5,), IMAGE),
    "RandomTranslation": ((0.5, 0.5), IMAGE),
    "RandomZoom": ((0.5,), IMAGE),
    "RepeatVector": ((4,), (2, 3)),
    "Rescaling": ((0.5,), IMAGE),
    "Reshape": (((-1,),), IMAGE),
    "Resizing": ((2, 2), IMAGE),
    "ReversibleEmbedding": ((11, 7), (2, 5)),
    "SeparableConv1D": (
        lambda: layers.SeparableConv1D(7, 2, depth_multiplier=4),
        SEQUENCE,
    ),
    "SeparableConv2D": (
        lambda: layers.SeparableConv2D(7, (2, 5), depth_multiplier=4),
        IMAGE,
    ),
    "SimpleRNN": ((4,), SEQUENCE),
    "SimpleRNNCell": ((4,), (2, 6)),
    "SpatialDropout1D": ((0.5,), SEQUENCE),
    "SpatialDropout2D": ((0.5,), IMAGE),
    "SpatialDropout3D": ((0.5,), (2, 4, 5, 6, 3)),
    "SpectralNormalization": (
        lambda: layers.SpectralNormalization(layers.Dense(7)),
        (2, 6),
    ),
    "StackedRNNCells": (
        lambda: layers.StackedRNNCells([layers.LSTMCell(4), layers.GRUCell(3)]),
        (2, 6),
    ),
    "Subtract": ((), [IMAGE, IMAGE]),
    "TimeDistributed": (lambda: layers.TimeDistributed(layers.Dense(7)), SEQUENCE),
    "Wrapper": (lambda: layers.Wrapper(layers.Dense(7)), (2, 6)),
}


CLASSES = {
    value.__name__: value
    for value in vars(layers).values()
    if isinstance(value, type) and issubclass(value, layers.Layer)
}


# Class name: {attribute path: (shape, input axes, output axes)}
KERNELS = {
    "Dense": {"kernel": ((3, 7), (0,), (1,))},
    "EinsumDense": {"kernel": ((6, 4, 7), (0,), (1, 2))},
    "Embedding": {"embeddings": ((11, 7), (), (1,))},
    "ReversibleEmbedding": {"embeddings": ((11, 7), (), (1,))},
    "Conv1D": {"kernel": ((2, 6, 7), (1,), (2,))},
    "Conv2D": {"kernel": ((2, 5, 3, 7), (2,), (3,))},
    "Conv3D": {"kernel": ((2, 4, 5, 3, 7), (3,), (4,))},
    "Conv1DTranspose": {"kernel": ((2, 7, 6), (2,), (1,))},
    "Conv2DTranspose": {"kernel": ((2, 5, 7, 3), (3,), (2,))},
    "Conv3DTranspose": {"kernel": ((2, 4, 5, 7, 3), (4,), (3,))},
    # Three channels, four filters each: nothing is summed but the window.
    "DepthwiseConv1D": {"kernel": ((2, 6, 4), (), (1, 2))},
    "DepthwiseConv2D": {"kernel": ((2, 5, 3, 4), (), (2, 3))},
    "SeparableConv1D": {
        "depthwise_kernel": ((2, 6, 4), (), (1, 2)),
        "pointwise_kernel": ((1, 24, 7), (1,), (2,)),
    },
    "SeparableConv2D": {
        "depthwise_kernel": ((2, 5, 3, 4), (), (2, 3)),
        "pointwise_kernel": ((1, 1, 12, 7), (2,), (3,)),
    },
    "LSTM": {
        "cell.kernel": ((6, 16), (0,), (1,)),
        "cell.recurrent_kernel": ((4, 16), (0,), (1,)),
    },
    "GRU": {
        "cell.kernel": ((6, 12), (0,), (1,)),
        "cell.recurrent_kernel": ((4, 12), (0,), (1,)),
    },
    "SimpleRNN": {
        "cell.kernel": ((6, 4), (0,), (1,)),
        "cell.recurrent_kernel": ((4, 4), (0,), (1,)),
    },
    "LSTMCell": {
        "kernel": ((6, 16), (0,), (1,)),
        "recurrent_kernel": ((4, 16), (0,), (1,)),
    },
    "GRUCell": {
        "kernel": ((6, 12), (0,), (1,)),
        "recurrent_kernel": ((4, 12), (0,), (1,)),
    },
    "SimpleRNNCell": {
        "kernel": ((6, 4), (0,), (1,)),
        "recurrent_kernel": ((4, 4), (0,), (1,)),
    },
    "ConvLSTM1D": {
        "cell.kernel": ((2, 3, 28), (1,), (2,)),
        "cell.recurrent_kernel": ((2, 7, 28), (1,), (2,)),
    },
    "ConvLSTM2D": {
        "cell.kernel": ((2, 5, 3, 28), (2,), (3,)),
        "cell.recurrent_kernel": ((2, 5, 7, 28), (2,), (3,)),
    },
    "ConvLSTM3D": {
        "cell.kernel": ((2, 4, 5, 3, 28), (3,), (4,)),
        "cell.recurrent_kernel": ((2, 4, 5, 7, 28), (3,), (4,)),
    },
    # Two heads; queries of 6, values (and so keys) of 7 features; 9 outputs.
    "MultiHeadAttention": {
        "_query_dense.kernel": ((6, 2, 3), (0,), (1, 2)),
        "_key_dense.kernel": ((7, 2, 3), (0,), (1, 2)),
        "_value_dense.kernel": ((7, 2, 4), (0,), (1, 2)),
        "_output_dense.kernel": ((2, 4, 9), (0, 1), (2,)),
    },
    "GroupedQueryAttention": {
        "_query_dense.kernel": ((6, 4, 3), (0,), (1, 2)),
        "_key_dense.kernel": ((7, 2, 3), (0,), (1, 2)),
        "_value_dense.kernel": ((7, 2, 3), (0,), (1, 2)),
        "_output_dense.kernel": ((4, 3, 6), (0, 1), (2,)),
    },
}
