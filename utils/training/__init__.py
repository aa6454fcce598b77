"""Everything behind train.py: processes, schedule, averaged weights, state, log."""
