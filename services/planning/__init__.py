"""What a knowledge base costs, before it is built: a job, not a server."""
