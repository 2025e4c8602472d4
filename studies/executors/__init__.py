"""Where a sweep runs its variants: on this machine, or on a cluster by Ray or Slurm. One file for each."""
