"""The application layer: one plain function per job, configuration in, result out."""
