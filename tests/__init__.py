"""All tests. A package, so that `tests.helpers` is ours: some installed packages bring a `tests` of their own."""
