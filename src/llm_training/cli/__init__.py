"""The commands, one file each. Words in, a job called, its result shown; no work is done here."""
