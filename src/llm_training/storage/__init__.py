"""The disk: the only writer of artefacts.

Everything that must survive a crash goes through ``durable`` (single files), ``directories`` (directory artefacts with a
manifest) or ``append`` (logs). All of them reach the operating system through one object, ``filesystem.FileSystem``,
so that tests can record every call and make any one of them fail.
"""
