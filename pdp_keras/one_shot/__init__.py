"""Prunes a trained model layer by layer, from what calibration data show of it."""

from pdp_keras.one_shot.methods import METHODS, Wanted
from pdp_keras.one_shot.observe import Observer
from pdp_keras.one_shot.products import Product, product_of

__all__ = ["METHODS", "Observer", "Product", "Wanted", "product_of"]
