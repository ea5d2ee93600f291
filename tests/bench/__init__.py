"""Speed and memory beside the original: `make bench`. Ratios from one run; never a timed test."""
