"""Configuration files of the official models; see `configuration.load_config`."""
