"""gRPC: servicers, the interceptor around them, translation of messages and errors."""
