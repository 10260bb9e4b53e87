"""Opens the app with its usual options; ``studio app --help`` lists them."""

import sys

from studio.cli import main

if __name__ == "__main__":
    sys.exit(main(["app", *sys.argv[1:]]))
