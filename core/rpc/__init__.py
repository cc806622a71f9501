"""gRPC, once for all services: server start and drain, the interceptors in their order, the one table of errors."""
