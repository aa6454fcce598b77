"""Pairs of rainy and clean images: finding, checking, reading and augmenting them.

``data.loaders`` builds what train.py reads; ``data.pairs`` says which images belong together, for
training and for scoring, and needs no PyTorch.
"""
