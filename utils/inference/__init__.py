"""Everything behind test.py: restoring images of any size, tiles, memory, threads, videos."""
