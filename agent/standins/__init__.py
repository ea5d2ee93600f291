"""A scripted desktop: for the demo, for tests and for users who verify offline."""
