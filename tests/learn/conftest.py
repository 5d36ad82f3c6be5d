"""The tests of this room share small.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
