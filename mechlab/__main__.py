"""`python -m mechlab` is the `mechlab` command."""

from mechlab.cli import main

if __name__ == "__main__":
    main()
