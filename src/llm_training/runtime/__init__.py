"""The machine: devices and precision, ranks, seeds, signals, the allocator, measured peaks."""
