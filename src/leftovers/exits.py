"""The exit statuses that the manual promises (leftovers(8), EXIT STATUS)."""

DONE = 0  # clean, or done
FAILED = 1  # something failed, or could not be read
USAGE = 2  # argparse's own
LEFT = 3  # leftovers are present
REFUSED = 4  # a guard said no, and nothing was changed
INTERRUPTED = 130  # as a shell says it of SIGINT
