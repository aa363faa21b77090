"""dpkg's pre-invoke: what this dpkg is about to remove is written down, and awaited."""

import os
import sys

if os.geteuid() != 0:
    sys.exit(0)
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from leftovers.hook import main

sys.exit(main("dpkg-pre", sys.argv[1:]))
