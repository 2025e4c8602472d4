"""Updates of structure weight: how a matrix loses weights. One file each; its name is the value of `prune.update`.

An update is a module with `remove(weight, choose, group, inputs)`, which returns the matrix with the chosen weights at
zero and the others made up for them. `weight` is float64, shape (out, in). `choose(part, columns)` tells which weights
of those columns, given as they are by now, go: a mask of the shape of `part`. Each column is asked for once, from left
to right, in whole groups of `group` columns: m of the pattern n:m, else 1. `inputs` are the statistics of what the
matrix reads, in the model as pruned so far (inputs.Inputs). `READS` says whether the update looks at them.
"""
