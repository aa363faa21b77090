"""apt's list of what comes and goes: replacements, arrivals, a refusal."""

import os
import sys

if os.geteuid() != 0:
    sys.exit(0)
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from leftovers.hook import main

sys.exit(main("apt-packages", sys.argv[1:]))
