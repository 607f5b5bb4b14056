"""What a run shows and records: console, metrics.jsonl, the JSON run log, throughput, plots.

Every sink is a plain callable that subscribes to the event bus; it sees facts and can change nothing.
"""
