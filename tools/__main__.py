"""`python -m tools`, and `python -m quelmdb.tools` where it is installed."""

from .cli import main

if __name__ == "__main__":
    main()
