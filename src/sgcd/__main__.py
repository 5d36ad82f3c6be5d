"""python -m sgcd"""

import sys

from sgcd.cli import main

if __name__ == "__main__":
    sys.exit(main())
