"""What every training on texts needs, read once before the processes are forked."""

import accuracy_text
import accuracy_training  # noqa: F401
import keras_hub  # noqa: F401

accuracy_text.load_glosses()
