"""Question sets and knowledge bases, for evaluation and training: generated, or out of installed packages."""
