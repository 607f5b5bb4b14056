"""The training engine: plan, optimizers, schedules, one step, the loop."""
