"""The tests of this room share drawn.py and browser.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
