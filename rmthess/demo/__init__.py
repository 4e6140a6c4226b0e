"""``rmthess demo``: theory beside measurement on a real network, in one report."""
