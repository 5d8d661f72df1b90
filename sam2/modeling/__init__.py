"""The modules of SAM 2, named so that their parameters have the names of the official checkpoint files."""
