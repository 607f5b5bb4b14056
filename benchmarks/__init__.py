"""Benchmarks: one command for each performance bar, its last result as JSON in ``results/``.

``python -m benchmarks`` runs them all and prints figure, bar, pass or fail; ``python -m benchmarks.NAME [--quick]
[--output FILE]`` runs one.
"""
