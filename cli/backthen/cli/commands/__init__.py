"""The commands, one module for each group of them. What they need of the repository is imported when they run."""
