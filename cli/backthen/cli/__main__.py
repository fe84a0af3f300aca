"""`python -m backthen.cli` is the same as `backthen`."""

from backthen.cli.main import main

if __name__ == "__main__":
    main()
