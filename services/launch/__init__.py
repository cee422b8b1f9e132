"""All three tiers on one machine, as child processes with embedded defaults: `memory3 serve`."""
