"""What exchanges carry, made readable and fit to be kept: only with `--bodies`, never in the way of the traffic."""
