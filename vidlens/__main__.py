"python -m vidlens: the command line."
import sys

from vidlens.cli import main

if __name__ == '__main__':
    sys.exit(main())
