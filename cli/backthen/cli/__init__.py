"""The command line: the only place that parses arguments, prints, asks, and reads the environment."""
