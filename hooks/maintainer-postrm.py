"""A packager's postrm remove and purge: sweep, before data is deleted."""

import os
import sys

if os.geteuid() != 0:
    sys.exit(0)
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from leftovers.hook import main

sys.exit(main("maintainer-postrm", sys.argv[1:]))
