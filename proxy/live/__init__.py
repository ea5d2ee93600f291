"""A local page that shows exchanges as they come. Whatever shows here was redacted before it got here."""
