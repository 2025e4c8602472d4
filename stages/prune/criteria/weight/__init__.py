"""Criteria of structure weight: what a single weight is worth. One file each; its name is `prune.criterion`.

A criterion is a module with `score(weight, inputs, columns)`, which returns the worth of every weight of those columns
in float64. `weight` is that part of the matrix as it is by now, shape (out, columns), in float64; `inputs` are the
statistics of all that the matrix reads, in the model as pruned so far (inputs.Inputs). `READS` says whether the
criterion looks at them.
"""
