"""The configuration: options, files, roles, and the release that is to run."""
