"""What ``tools/benchmark.py`` measures: one module for each subcommand.

Each has ``add_arguments(parser)`` and ``run(args)``, which returns its tables as text.
"""
