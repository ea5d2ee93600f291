"""What `countersign doctor` looks at, and what it makes of it: looking (`machine`, `trial`) is apart from judging."""
