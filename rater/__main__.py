"""`python -m rater` is the same as `rater`."""

from rater.cli import main

if __name__ == "__main__":
    main()
