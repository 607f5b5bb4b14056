"""What a run is: typed sections, their names and aliases, and the one loader (``load.load_config``)."""
