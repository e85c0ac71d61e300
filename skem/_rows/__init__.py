"""Where rows live: in memory, in files, or on a cluster."""
