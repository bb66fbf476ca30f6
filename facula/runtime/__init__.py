"""Running programs: machine code, its cache, the thread pool and memory."""
