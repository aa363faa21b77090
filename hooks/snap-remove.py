"""A snap's own remove hook: its services were stopped, its data is there."""

import os
import sys

if os.geteuid() != 0:
    sys.exit(0)
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from leftovers.hook import main

sys.exit(main("snap-remove", sys.argv[1:]))
