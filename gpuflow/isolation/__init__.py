"""Where decoding runs: in this process, or in worker processes that can open, start and reach nothing."""
