"""Documents -> references -> memories and index: a job, not a server."""
