"""The client of the model: Responses over WebSocket and over POST with SSE, always through the proxy it is given."""
