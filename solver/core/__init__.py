"""The pure core: no await, clock, log, environment, network or SQL."""
