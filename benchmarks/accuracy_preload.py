"""What every training needs, read once before the processes are forked."""

import accuracy_networks
import accuracy_training  # noqa: F401

accuracy_networks.load_images()
