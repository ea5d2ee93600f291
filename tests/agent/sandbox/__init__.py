"""The sandbox: what is decided, and what the kernel then does."""
