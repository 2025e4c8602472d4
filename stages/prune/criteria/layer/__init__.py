"""Criteria of structure layer: what a decoder layer is worth. One file each; its name is `prune.criterion`.

A criterion is a module with `score(model, layers, windows, params)`, which returns the worth of each of the `layers`,
indices into those of `model`, as a float64 tensor of shape (len(layers),). `windows` are the calibration tokens, shape
(count, length).
"""
