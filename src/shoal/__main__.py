"""``python -m shoal``: the command line, for places where the ``shoal`` script isn't on the path."""

from shoal.cli import main

if __name__ == "__main__":
    main()
