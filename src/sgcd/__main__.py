"""python -m sgcd"""

import sys

from sgcd.cli import main

sys.exit(main())
