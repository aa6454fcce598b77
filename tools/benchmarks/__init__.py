"""What ``tools/benchmark.py`` measures: one module for each of its subcommands.

Each offers ``add_arguments(parser)`` and ``run(args)``, which prints its tables and returns them.
"""
