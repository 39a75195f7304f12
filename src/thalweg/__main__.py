"""``python -m thalweg`` is the program ``thalweg``."""

from thalweg.cli import main

if __name__ == "__main__":
    main()
