"""A snap's own remove hook: sweep what runs, and leave the snap's data to snapd."""

import os
import sys

if os.geteuid() != 0:
    sys.exit(0)
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(os.path.abspath(f"{sys.path[0]}/../../lib/python3/dist-packages"))

from leftovers.hook import main

sys.exit(main("snap-remove", sys.argv[1:]))
