"""`python -m optuna_discipline` is the command line."""

import sys

from optuna_discipline.cli import main

if __name__ == "__main__":
    sys.exit(main())
