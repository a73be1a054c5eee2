"""What every training needs, imported and read once before the processes are forked."""

import accuracy_training
import tensorflow  # noqa: F401, Keras on JAX imports it, but not before it needs it

accuracy_training.load_images()
