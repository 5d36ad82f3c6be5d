"""The tests of this room share group.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
