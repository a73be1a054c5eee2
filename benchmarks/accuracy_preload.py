"""What every training needs, read once before the processes are forked."""

import accuracy_training

accuracy_training.load_images()
