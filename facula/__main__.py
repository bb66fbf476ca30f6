"""`python -m facula`: the command line (see `facula.cli`)."""

from facula.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
